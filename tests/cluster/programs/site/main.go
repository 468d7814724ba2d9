// What stands beside a gateway in pods of the tests: a service that judges sessions, and a web site with files.
//
// Over http GET /check answers 204 with X-User to a cookie session=TOKEN that the flag names, and 401 to all others. Over
// https, where a certificate is given, the files of a folder are served.
package main

import (
	"flag"
	"log"
	"net/http"
	"strings"
)

func main() {
	plain := flag.String("http", ":8080", "where sessions are judged")
	secure := flag.String("https", ":8443", "where files are served, with a certificate")
	sessions := flag.String("sessions", "", "TOKEN=USER, with commas between them")
	files := flag.String("files", "", "the folder that is served")
	tls := flag.String("tls", "", "the folder with tls.crt and tls.key")
	flag.Parse()

	users := map[string]string{}
	for _, session := range strings.Split(*sessions, ",") {
		if token, user, found := strings.Cut(session, "="); found {
			users[token] = user
		}
	}
	judge := http.NewServeMux()
	judge.HandleFunc("GET /check", func(answer http.ResponseWriter, request *http.Request) {
		cookie, err := request.Cookie("session")
		if err != nil || users[cookie.Value] == "" {
			answer.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer.Header().Set("X-User", users[cookie.Value])
		answer.WriteHeader(http.StatusNoContent)
	})
	if *tls != "" {
		site := http.FileServer(http.Dir(*files))
		go func() { log.Fatal(http.ListenAndServeTLS(*secure, *tls+"/tls.crt", *tls+"/tls.key", site)) }()
	}
	log.Fatal(http.ListenAndServe(*plain, judge))
}
