package install

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a real kube-apiserver with its etcd, on loopback, alone: there are no controllers and no nodes.
type server struct {
	address    string
	kubeconfig string
	client     http.Client
}

const token = "test"

// port gives a port of loopback that was free a moment ago.
func port(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, found, _ := net.SplitHostPort(listener.Addr().String())
	return found
}

// start runs a program until the test ends.
func start(t testing.TB, folder, name string, arguments ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(folder, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program(t, name), arguments...)
	command.Dir, command.Stdout, command.Stderr = folder, log, log
	// They end with the test, however it ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		_ = log.Close()
	})
}

// serve starts an API server and waits until it answers.
func serve(t testing.TB) *server {
	t.Helper()
	folder := t.TempDir()
	etcd, peer, secure := port(t), port(t), port(t)
	start(t, folder, "etcd", "--data-dir", filepath.Join(folder, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://127.0.0.1:"+etcd, "--advertise-client-urls", "http://127.0.0.1:"+etcd,
		"--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer,
		"--initial-cluster", "default=http://127.0.0.1:"+peer)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	accounts := filepath.Join(folder, "accounts.key")
	write(t, accounts, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	tokens := filepath.Join(folder, "tokens.csv")
	write(t, tokens, token+",admin,admin,\"system:masters\"\n")
	start(t, folder, "kube-apiserver", "--etcd-servers=http://127.0.0.1:"+etcd, "--secure-port="+secure,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--cert-dir="+filepath.Join(folder, "certificates"), "--service-account-key-file="+accounts,
		"--service-account-signing-key-file="+accounts, "--service-account-issuer=https://kubernetes.default.svc",
		"--token-auth-file="+tokens, "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16")
	// Its certificate is its own, made a moment ago, on loopback.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	s := &server{
		address: "https://127.0.0.1:" + secure, kubeconfig: filepath.Join(folder, "kubeconfig"),
		client: http.Client{Transport: transport, Timeout: 30 * time.Second},
	}
	t.Cleanup(transport.CloseIdleConnections)
	write(t, s.kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: admin}}]
clusters: [{name: test, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: %q}}]
`, s.address, token))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err := s.get("/readyz"); err == nil {
			// What the API server makes of itself in its first second: without it nothing can be created.
			if _, err := s.get("/api/v1/namespaces/default"); err == nil {
				return s
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(folder, "kube-apiserver.log"))
			t.Fatalf("the API server is not ready after a minute; the end of its log:\n%s", text[max(0, len(text)-3000):])
		}
	}
}

// get asks the API server.
func (s *server) get(path string) ([]byte, error) {
	context, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(context, http.MethodGet, s.address+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return body, err
}

// try runs kubectl or helm against the API server.
func (s *server) try(t testing.TB, input, name string, arguments ...string) (string, string, error) {
	t.Helper()
	command := exec.Command(program(t, name), arguments...)
	command.Dir = root
	command.Env = environment(t, "KUBECONFIG="+s.kubeconfig)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	return stdout.String(), stderr.String(), err
}

// run is try that has to succeed.
func (s *server) run(t testing.TB, input, name string, arguments ...string) string {
	t.Helper()
	stdout, stderr, err := s.try(t, input, name, arguments...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, stdout, stderr)
	}
	return stdout
}

func (s *server) kubectl(t testing.TB, arguments ...string) string {
	t.Helper()
	return s.run(t, "", "kubectl", arguments...)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
