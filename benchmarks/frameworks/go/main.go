// net/http with three routes and nothing else: it has no host validation to switch on.
package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{number}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, map[string]any{"id": 1, "self": "http://" + r.Host + r.URL.Path})
	})
	mux.HandleFunc("POST /items", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/items/1")
		answer(w, 201, map[string]any{"name": "made"})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answer(w, 200, map[string]any{"status": "up"}) })
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], mux))
}
