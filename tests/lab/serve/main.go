// Command serve offers a folder over HTTP: the web server that a template is
// downloaded from in the demonstration. It runs in the network of a lab host:
//
//	nsenter --net=/proc/PID/ns/net bin/lab-serve 127.0.0.1:8099 FOLDER
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: serve ADDRESS FOLDER")
		os.Exit(2)
	}
	server := &http.Server{Addr: os.Args[1], Handler: http.FileServer(http.Dir(os.Args[2])), ReadHeaderTimeout: 10 * time.Second}
	if err := server.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}
