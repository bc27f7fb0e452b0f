// pgx as a driver of `chaos-gate matrix`: go build -o pgx-client . && chaos-gate matrix --driver 'pgx=./pgx-client'
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgx/v5"
)

func once(url string) error {
	session, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return err
	}
	defer session.Close(context.Background())
	_, err = session.Exec(context.Background(), "SELECT 1")
	return err
}

func main() {
	built, _ := debug.ReadBuildInfo()
	version := built.GoVersion
	for _, module := range built.Deps {
		if module.Path == "github.com/jackc/pgx/v5" {
			version = module.Version + ", " + version
		}
	}
	fmt.Println("ready", version)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		url, _, _ := strings.Cut(lines.Text(), " ")
		if err := once(url); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
}
