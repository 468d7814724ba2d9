// cert-manager's HTTP-01 solver, for the image of the pods that cert-manager starts.
package main

import (
	"flag"
	"log"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	server := solver.HTTP01Solver{}
	flag.IntVar(&server.ListenPort, "listen-port", 8089, "port to answer on")
	flag.StringVar(&server.Domain, "domain", "", "host that is asked for")
	flag.StringVar(&server.Token, "token", "", "token of the challenge")
	flag.StringVar(&server.Key, "key", "", "answer to the challenge")
	flag.Parse()
	log.Fatal(server.Listen(logf.Log))
}
