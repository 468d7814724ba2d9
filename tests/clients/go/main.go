// The clients of gorilla and coder on one walk: refused without a token, refused with one that lacks a claim, then through
// with a good one. Arguments: host, port, the authority's file. Says what each saw, one JSON document on a line.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

const text = "grüße €"

var (
	binary = make([]byte, 40_000)
	url    = "wss://" + os.Args[1] + ":" + os.Args[2] + "/walk"
	trust  = &tls.Config{RootCAs: x509.NewCertPool()}
)

// dial leads every name to the gateway.
func dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+os.Args[2])
}

func bearer(token string) http.Header {
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

func ofGorilla(_ context.Context, token string) (any, error) {
	dialer := gorilla.Dialer{NetDialContext: dial, TLSClientConfig: trust, HandshakeTimeout: 30 * time.Second}
	socket, answer, err := dialer.Dial(url, bearer(token))
	if errors.Is(err, gorilla.ErrBadHandshake) {
		return answer.StatusCode, nil
	}
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	var came []any
	for kind, data := range map[int][]byte{gorilla.TextMessage: []byte(text), gorilla.BinaryMessage: binary} {
		if err := socket.WriteMessage(kind, data); err != nil {
			return nil, err
		}
		back, echo, err := socket.ReadMessage()
		if err != nil {
			return nil, err
		}
		if back != kind || !bytes.Equal(echo, data) {
			return "another message came back", nil
		}
	}
	came = append(came, text, true)
	end := gorilla.FormatCloseMessage(4000, "enough")
	if err := socket.WriteControl(gorilla.CloseMessage, end, time.Now().Add(30*time.Second)); err != nil {
		return nil, err
	}
	_, _, err = socket.ReadMessage()
	var closed *gorilla.CloseError
	if !errors.As(err, &closed) {
		return nil, err
	}
	return append(came, closed.Code, closed.Text), nil
}

func ofCoder(ctx context.Context, token string) (any, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: trust}}
	socket, answer, err := coder.Dial(ctx, url, &coder.DialOptions{HTTPClient: client, HTTPHeader: bearer(token)})
	if err != nil && answer != nil {
		return answer.StatusCode, nil
	}
	if err != nil {
		return nil, err
	}
	defer socket.CloseNow()
	socket.SetReadLimit(int64(len(binary)))
	for kind, data := range map[coder.MessageType][]byte{coder.MessageText: []byte(text), coder.MessageBinary: binary} {
		if err := socket.Write(ctx, kind, data); err != nil {
			return nil, err
		}
		back, echo, err := socket.Read(ctx)
		if err != nil {
			return nil, err
		}
		if back != kind || !bytes.Equal(echo, data) {
			return "another message came back", nil
		}
	}
	// It fails unless the Close frame that comes back has the same code.
	if err := socket.Close(4000, "enough"); err != nil {
		return nil, err
	}
	return []any{text, true, 4000, "enough"}, nil
}

func main() {
	for at := range binary {
		binary[at] = byte(at)
	}
	authority, err := os.ReadFile(os.Args[3])
	if err != nil || !trust.RootCAs.AppendCertsFromPEM(authority) {
		log.Fatal("the authority: ", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := json.NewEncoder(os.Stdout)
	clients := []struct {
		name string
		walk func(context.Context, string) (any, error)
	}{{"gorilla", ofGorilla}, {"coder", ofCoder}}
	steps := [][2]string{{"without", ""}, {"limited", os.Getenv("LIMITED")}, {"good", os.Getenv("GOOD")}}
	for _, client := range clients {
		for _, step := range steps {
			saw, err := client.walk(ctx, step[1])
			if err != nil {
				log.Fatalf("%s %s: %v", client.name, step[0], err)
			}
			if err := out.Encode(map[string]any{"client": client.name, "step": step[0], "saw": saw}); err != nil {
				log.Fatal(err)
			}
		}
	}
}
