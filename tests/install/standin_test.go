package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standin is what an API server lacks to be a cluster: the real controllers, and in the place of nodes a loop that says of
// every Pod that it runs. A Pod of the gateway does run: the binary, as a process, with the Pod's arguments, variables and
// settings, as the Pod's service account and nobody else. No other image runs, and no packet reaches a Pod.
type standin struct {
	s        *server
	folder   string
	gateways map[string]*gateway
	count    int
}

type gateway struct {
	command  *exec.Cmd
	admin    string
	settings string
	log      string
}

// controlled gives the API server its controllers and stand-ins, until the test ends.
func (s *server) controlled(t *testing.T) *standin {
	t.Helper()
	folder := filepath.Dir(s.kubeconfig)
	start(t, folder, "kube-controller-manager", "--kubeconfig="+s.kubeconfig, "--leader-elect=false",
		"--root-ca-file="+filepath.Join(folder, "certificates", "apiserver.crt"), "--bind-address=127.0.0.1",
		"--service-account-private-key-file="+filepath.Join(folder, "accounts.key"), "--secure-port="+port(t),
		"--cert-dir="+filepath.Join(folder, "controllers"))
	m := &standin{s: s, folder: t.TempDir(), gateways: map[string]*gateway{}}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer m.end(nil)
		for {
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
			}
			if err := m.round(); err != nil {
				select {
				case <-ended:
				default:
					t.Logf("stand-in: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(ended)
		<-done
	})
	return m
}

// round looks at every Pod once.
func (m *standin) round() error {
	body, err := m.s.get("/api/v1/pods")
	if err != nil {
		return err
	}
	var list struct {
		Items []object `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	there := map[string]bool{}
	for _, pod := range list.Items {
		uid := at(pod, "metadata", "uid").(string)
		there[uid] = true
		container := at(pod, "spec", "containers", 0)
		if arguments := texts(at(container, "args")); len(arguments) > 0 && arguments[0] == "run" {
			if err := m.keep(uid, pod, arguments); err != nil {
				return fmt.Errorf("%s: %w", named(pod), err)
			}
			if !m.gateways[uid].ready() {
				continue
			}
		}
		if at(pod, "status", "phase") == "Running" {
			continue
		}
		m.count++
		status := object{"status": object{
			"phase": "Running", "podIP": fmt.Sprintf("10.1.0.%d", m.count%250+1),
			"podIPs":     []object{{"ip": fmt.Sprintf("10.1.0.%d", m.count%250+1)}},
			"conditions": []object{{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}},
		}}
		path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/status", at(pod, "metadata", "namespace"), at(pod, "metadata", "name"))
		if err := m.s.send(http.MethodPatch, path, "application/merge-patch+json", status, nil); err != nil && !gone(err) {
			return err
		}
	}
	m.end(there)
	return nil
}

// keep starts the gateway of a Pod, once, and gives it its settings as they are now.
func (m *standin) keep(uid string, pod object, arguments []string) error {
	namespace := at(pod, "metadata", "namespace").(string)
	folder := filepath.Join(m.folder, uid)
	var volume string
	for _, v := range at(pod, "spec", "volumes").([]any) {
		if name, is := at(v, "configMap", "name").(string); is {
			volume = name
		}
	}
	body, err := m.s.get("/api/v1/namespaces/" + namespace + "/configmaps/" + volume)
	if err != nil {
		return err
	}
	var settings object
	if err := json.Unmarshal(body, &settings); err != nil {
		return err
	}
	text := at(settings, "data", "gateway.yaml").(string)
	known := m.gateways[uid]
	if known != nil && known.settings == text {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	file := filepath.Join(folder, "gateway.yaml")
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	if known != nil {
		known.settings = text
		return nil
	}

	account := at(pod, "spec", "serviceAccountName").(string)
	var token object
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + account + "/token"
	request := object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{}}
	if err := m.s.send(http.MethodPost, path, "application/json", request, &token); err != nil {
		return err
	}
	kubeconfig := filepath.Join(folder, "kubeconfig")
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: pod
contexts: [{name: pod, context: {cluster: pod, user: pod, namespace: %q}}]
clusters: [{name: pod, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: pod, user: {token: %q}}]
`, namespace, m.s.address, filepath.Join(filepath.Dir(m.s.kubeconfig), "certificates", "apiserver.crt"), at(token, "status", "token"))
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		return err
	}
	g := &gateway{settings: text, log: filepath.Join(folder, "log")}
	if g.admin, err = free(); err != nil {
		return err
	}
	for i, argument := range arguments {
		switch name, _, _ := strings.Cut(argument, "="); name {
		case "--config":
			arguments[i] = "--config=" + file
		case "--listen", "--listen-http":
			arguments[i] = name + "=127.0.0.1:0"
		case "--admin":
			arguments[i] = "--admin=" + g.admin
		}
	}
	binary, err := filepath.Abs(gatewayBinary())
	if err != nil {
		return err
	}
	g.command = exec.Command(binary, arguments...)
	g.command.Env = []string{"WSSGATE_KUBECONFIG=" + kubeconfig}
	for _, variable := range at(pod, "spec", "containers", 0, "env").([]any) {
		value := at(variable, "value")
		switch at(variable, "valueFrom", "fieldRef", "fieldPath") {
		case "metadata.name":
			value = at(pod, "metadata", "name")
		case "metadata.namespace":
			value = namespace
		case "status.podIP":
			value = "127.0.0.1"
		}
		g.command.Env = append(g.command.Env, fmt.Sprintf("%s=%v", at(variable, "name"), value))
	}
	log, err := os.Create(g.log)
	if err != nil {
		return err
	}
	defer log.Close()
	g.command.Stderr = log
	g.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.command.Start(); err != nil {
		return err
	}
	m.gateways[uid] = g
	return nil
}

// ready asks as the kubelet does.
func (g *gateway) ready() bool {
	client := http.Client{Timeout: time.Second}
	response, err := client.Get("http://" + g.admin + "/readyz")
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// end ends the gateways of Pods that are not there; all, with nil.
func (m *standin) end(there map[string]bool) {
	for uid, g := range m.gateways {
		if !there[uid] {
			_ = g.command.Process.Kill()
			_ = g.command.Wait()
			delete(m.gateways, uid)
		}
	}
}

// story gives the ends of the gateways' logs, for who reads a failure.
func (m *standin) story() string {
	var all strings.Builder
	logs, _ := filepath.Glob(filepath.Join(m.folder, "*", "log"))
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		fmt.Fprintf(&all, "== %s\n%s\n", log, text[max(0, len(text)-3000):])
	}
	return all.String()
}

// gatewayBinary is the gateway that cargo built.
func gatewayBinary() string {
	if binary := os.Getenv("WSSGATE_BINARY"); binary != "" {
		return binary
	}
	return filepath.Join(root, "target/debug/wssgate")
}

type refused struct {
	status int
	text   string
}

func (r refused) Error() string { return fmt.Sprintf("%d %s", r.status, r.text) }

func gone(err error) bool {
	var r refused
	return errors.As(err, &r) && (r.status == http.StatusNotFound || r.status == http.StatusConflict)
}

// send writes to the API server, as the administrator.
func (s *server) send(method, path, kind string, body object, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, s.address+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", kind)
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	found, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return refused{response.StatusCode, string(found)}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(found, answer)
}
