package install

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// definitions gives the API server what is not its own: the kinds of other projects that the chart and samples use.
func (s *server) definitions(t testing.TB) {
	t.Helper()
	crds := filepath.Join(filepath.Dir(filepath.Dir(program(t, "helm"))), "crds")
	for _, folder := range []string{"cert-manager", "gateway-api", "prometheus-operator"} {
		// A link, which kubectl does not follow.
		path, err := filepath.EvalSymlinks(filepath.Join(crds, folder))
		if err != nil {
			t.Fatalf("run scripts/cluster-programs: %v", err)
		}
		s.kubectl(t, "apply", "--server-side", "-f", path)
	}
	s.kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}

func (s *server) namespaces(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		s.run(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}", "kubectl", "apply", "--server-side", "-f", "-")
	}
}

// The API server's own schemas, in the form and with the strictness of kubeconform.
func (s *server) schemas(t *testing.T) string {
	t.Helper()
	body, err := s.get("/openapi/v2")
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(body, &api); err != nil {
		t.Fatal(err)
	}
	for _, definition := range api.Definitions {
		strict(definition)
	}
	// What JSON Schema cannot say of them.
	api.Definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = object{"type": []string{"integer", "string"}}
	api.Definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = object{"type": []string{"number", "string"}}
	folder := t.TempDir()
	count := 0
	for name, definition := range api.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			group, _ := at(kind, "group").(string)
			if group == "" {
				group = "v1" // What kubeconform calls the core.
			}
			file := fmt.Sprintf("%s-%s-%s.json", group, at(kind, "version"), strings.ToLower(at(kind, "kind").(string)))
			text, err := json.Marshal(object{
				"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/" + name, "definitions": api.Definitions,
			})
			if err != nil {
				t.Fatal(err)
			}
			// Only what is used: each file carries all definitions.
			if slices.Contains(usedKinds, at(kind, "kind").(string)) {
				write(t, filepath.Join(folder, file), string(text))
				count++
			}
		}
	}
	if count < len(usedKinds) {
		t.Fatalf("%d schemas for %d kinds", count, len(usedKinds))
	}
	return folder
}

var usedKinds = []string{
	"ClusterRole", "ClusterRoleBinding", "ConfigMap", "CustomResourceDefinition", "Deployment", "HorizontalPodAutoscaler",
	"IngressClass", "NetworkPolicy", "PodDisruptionBudget", "Role", "RoleBinding", "SecureWebSocketRoute", "Secret", "Service",
	"ServiceAccount", "Namespace", "ServiceMonitor", "PrometheusRule",
}

// strict lets an object have no fields but those it knows.
func strict(schema any) {
	switch schema := schema.(type) {
	case object:
		if _, is := schema["properties"].(object); is && schema["additionalProperties"] == nil &&
			schema["x-kubernetes-preserve-unknown-fields"] != true {
			schema["additionalProperties"] = false
		}
		for _, inner := range schema {
			strict(inner)
		}
	case []any:
		for _, inner := range schema {
			strict(inner)
		}
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.definitions(t)
	s.run(t, read(t, "manifests/base/crd.yaml"), "kubectl", "apply", "--server-side", "-f", "-")
	s.kubectl(t, "wait", "--for=condition=Established", "crd/securewebsocketroutes.wssgate.io", "--timeout=60s")
	s.namespaces(t, "wssgate", "shop", "apps", "edge", "web", "partners")

	t.Run("kubeconform finds every rendering to fit the API server's schemas", func(t *testing.T) { conform(t, s) })
	t.Run("the API server takes every rendering, field by field", func(t *testing.T) { dryRun(t, s) })
	t.Run("the pods are let into a namespace that is restricted", func(t *testing.T) { restricted(t, s) })
	t.Run("kustomize overlays are taken whole", func(t *testing.T) { overlays(t, s) })
	t.Run("the account may do what the gateway does, and nothing that it does not", func(t *testing.T) { may(t, s) })
	t.Run("samples are taken by the API server", func(t *testing.T) { samples(t, s) })
}

func conform(t *testing.T, s *server) {
	location := filepath.Join(s.schemas(t), "{{.Group}}-{{.ResourceAPIVersion}}-{{.ResourceKind}}.json")
	check := func(text string) (string, error) {
		stdout, stderr, err := try(t, text, "kubeconform", "-strict", "-summary", "-schema-location", location, "-")
		return stdout + stderr, err
	}
	for _, values := range valuesFiles(t) {
		if output, err := check(render(t, values)); err != nil {
			t.Errorf("%s: %v\n%s", values, err, output)
		}
	}
	// It is an oracle only if it says no.
	typo := strings.Replace(render(t, "default"), "terminationGracePeriodSeconds", "terminationGraceperiodSeconds", 1)
	if output, err := check(typo); err == nil || !strings.Contains(output, "terminationGraceperiodSeconds") {
		t.Errorf("a field that does not exist passes: %v %s", err, output)
	}
}

func dryRun(t *testing.T, s *server) {
	for _, values := range valuesFiles(t) {
		text := render(t, values)
		stdout, stderr, err := s.try(t, text, "kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict",
			"--force-conflicts", "-f", "-")
		if err != nil || strings.Contains(stderr, "Warning") {
			t.Errorf("%s: %v\n%s%s", values, err, stdout, stderr)
		}
	}
}

func restricted(t *testing.T, s *server) {
	s.kubectl(t, "label", "namespace", "wssgate", "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
	s.run(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: wssgate, namespace: wssgate}", "kubectl", "apply", "--server-side", "-f", "-")
	create := func(values string, change func(pod object)) (string, error) {
		deployment := of(documents(t, render(t, values, "--set", "serviceAccount.name=wssgate")), "Deployment")[0]
		pod := at(deployment, "spec", "template").(object)
		pod["apiVersion"], pod["kind"] = "v1", "Pod"
		pod["metadata"] = object{"name": "probe", "namespace": "wssgate"}
		change(pod)
		text, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		_, stderr, err := s.try(t, string(text), "kubectl", "create", "--dry-run=server", "-f", "-")
		return stderr, err
	}
	for _, values := range []string{"default", "minimal", "everything"} {
		if output, err := create(values, func(object) {}); err != nil || strings.Contains(output, "Warning") {
			t.Errorf("%s: %v %s", values, err, output)
		}
	}
	output, err := create("default", func(pod object) { delete(at(pod, "spec", "containers", 0).(object), "securityContext") })
	if err == nil || !strings.Contains(output, "PodSecurity") {
		t.Errorf("the namespace restricts nothing: %v %s", err, output)
	}
	// What the standard does not ask for.
	for _, values := range valuesFiles(t) {
		pod := at(of(documents(t, render(t, values)), "Deployment")[0], "spec", "template", "spec")
		container := at(pod, "containers", 0, "securityContext")
		for _, fault := range []bool{
			at(container, "readOnlyRootFilesystem") != true, at(container, "allowPrivilegeEscalation") != false,
			fmt.Sprint(at(container, "capabilities", "drop")) != "[ALL]", at(container, "capabilities", "add") != nil,
			at(pod, "securityContext", "seccompProfile", "type") != "RuntimeDefault", at(pod, "hostNetwork") != nil,
			at(pod, "enableServiceLinks") != false, !onlyObjects(pod.(object)["volumes"].([]any)),
		} {
			if fault {
				t.Errorf("%s: %v %v", values, container, pod)
			}
		}
	}
}

// The settings, and what values name: nothing of the node.
func onlyObjects(volumes []any) bool {
	return !slices.ContainsFunc(volumes, func(volume any) bool {
		return len(volume.(object)) != 2 || at(volume, "configMap") == nil && at(volume, "projected") == nil
	})
}

func overlays(t *testing.T, s *server) {
	for _, overlay := range []string{"base", "default", "high-availability", "namespaced"} {
		stdout, stderr, err := s.try(t, "", "kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict",
			"--force-conflicts", "-k", "manifests/"+overlay)
		if err != nil || strings.Contains(stderr, "Warning") {
			t.Errorf("%s: %v\n%s%s", overlay, err, stdout, stderr)
		}
	}
	tenant(t, s)
	// The two places that say how a namespace is restricted do not drift apart from the image's name.
	for _, o := range of(documents(t, run(t, "kubectl", "kustomize", "manifests/default")), "Deployment") {
		if image := at(o, "spec", "template", "spec", "containers", 0, "image"); !strings.HasPrefix(image.(string), "wssgate:") {
			t.Errorf("%v", image)
		}
	}
}

// Who has rights in the namespace alone installs the namespaced overlay; who may not do there what the gateway may, cannot
// give it to him.
func tenant(t *testing.T, s *server) {
	s.run(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tenant, namespace: wssgate}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: wssgate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tenant}
subjects: [{kind: User, name: tenant, apiGroup: rbac.authorization.k8s.io}]
`, "kubectl", "apply", "-f", "-")
	for _, what := range []string{"list nodes", "create ingressclasses.networking.k8s.io", "list secrets -n shop"} {
		if stdout, _, _ := s.try(t, "", "kubectl", strings.Fields("auth can-i --as=tenant "+what)...); !strings.HasPrefix(stdout, "no") {
			t.Errorf("the tenant may %s: it shows nothing", what)
		}
	}
	apply := strings.Fields("apply --as=tenant --server-side --force-conflicts -k manifests/namespaced")
	s.run(t, "", "kubectl", apply...)
	s.run(t, "", "kubectl", strings.Fields("delete --as=tenant --wait=false -k manifests/namespaced")...)
	// What is another group's he does not have.
	s.run(t, "", "kubectl", "patch", "role", "tenant", "-n", "wssgate", "--type=json", "-p",
		`[{"op": "replace", "path": "/rules/0", "value": {"apiGroups": ["", "apps", "rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]}}]`)
	if _, stderr, err := s.try(t, "", "kubectl", apply...); err == nil || !strings.Contains(stderr, "attempting to grant RBAC permissions not currently held") {
		t.Errorf("somebody gave what he does not have: %v %s", err, stderr)
	}
	s.kubectl(t, strings.Fields("delete --ignore-not-found -k manifests/namespaced")...)
}

// may asks the API server itself, as the account that the chart makes.
func may(t *testing.T, s *server) {
	cache := t.TempDir() // What the API server serves is asked once, not for every question.
	for _, c := range []struct {
		values    string
		namespace string
		yes, no   []string
	}{
		{
			"default", "shop",
			[]string{
				"list securewebsocketroutes.wssgate.io", "patch securewebsocketroutes.wssgate.io --subresource=status",
				"watch secrets", "watch configmaps", "watch services", "watch endpointslices.discovery.k8s.io", "watch ingresses.networking.k8s.io",
				"watch ingressclasses.networking.k8s.io", "watch referencegrants.gateway.networking.k8s.io",
				"create events.events.k8s.io", "get crd/securewebsocketroutes.wssgate.io",
			},
			[]string{
				"create pods", "get pods", "update secrets", "create secrets", "delete secrets", "patch securewebsocketroutes.wssgate.io",
				"delete securewebsocketroutes.wssgate.io", "update securewebsocketroutes.wssgate.io --subresource=finalizers", "create certificates.cert-manager.io", "list certificates.cert-manager.io",
				"create leases.coordination.k8s.io", "get crd/certificates.cert-manager.io", "escalate clusterroles", "bind clusterroles",
				"impersonate users", "create tokenreviews", "create serviceaccounts --subresource=token", "get nodes", "list namespaces",
			},
		},
		{
			"default", "wssgate",
			[]string{"create leases.coordination.k8s.io", "update leases.coordination.k8s.io/wssgate", "get leases.coordination.k8s.io/wssgate"},
			[]string{"update leases.coordination.k8s.io/other", "delete leases.coordination.k8s.io/wssgate", "create pods", "create configmaps"},
		},
		{
			"two-namespaces", "shop",
			[]string{
				"list securewebsocketroutes.wssgate.io", "watch configmaps", "get secrets/chat-tls", "watch secrets/chat-tls",
				"get secrets/default-tls",
			},
			[]string{"list secrets", "get secrets/other", "watch secrets", "get secrets/feed-tls"},
		},
		{
			"two-namespaces", "web",
			nil,
			[]string{
				"list securewebsocketroutes.wssgate.io", "get secrets/chat-tls", "list services", "list ingressclasses.networking.k8s.io",
				"get crd/securewebsocketroutes.wssgate.io",
			},
		},
		{"namespaced", "wssgate", []string{"list securewebsocketroutes.wssgate.io", "watch secrets"}, []string{"create pods"}},
		{"namespaced", "shop", nil, []string{"list securewebsocketroutes.wssgate.io", "list secrets", "list services"}},
	} {
		var text strings.Builder
		for _, o := range documents(t, render(t, c.values, "--set", "crds.enabled=false")) {
			if slices.Contains([]string{"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}, o["kind"].(string)) {
				part, _ := yaml.Marshal(o)
				text.WriteString("---\n" + string(part))
			}
		}
		s.run(t, text.String(), "kubectl", "apply", "-f", "-")
		ask := func(question string) string {
			arguments := append([]string{"auth", "can-i", "--quiet=false", "--cache-dir=" + cache, "-n", c.namespace, "--as=system:serviceaccount:wssgate:wssgate"},
				strings.Split(question, " ")...)
			stdout, _, _ := s.try(t, "", "kubectl", arguments...)
			return strings.TrimSpace(stdout)
		}
		for _, question := range c.yes {
			if answer := ask(question); answer != "yes" {
				t.Errorf("%s: in %s may not %s: %s", c.values, c.namespace, question, answer)
			}
		}
		for _, question := range c.no {
			if answer := ask(question); !strings.HasPrefix(answer, "no") {
				t.Errorf("%s: in %s may %s: %s", c.values, c.namespace, question, answer)
			}
		}
		s.run(t, text.String(), "kubectl", "delete", "-f", "-")
	}
}

func samples(t *testing.T, s *server) {
	files, _ := filepath.Glob(filepath.Join(root, "manifests/samples/*.yaml"))
	if len(files) < 7 {
		t.Fatalf("%v", files)
	}
	for _, file := range files {
		name := "manifests/samples/" + filepath.Base(file)
		stdout, stderr, err := s.try(t, "", "kubectl", "apply", "--server-side", "--validate=strict", "-f", name)
		if err != nil || strings.Contains(stderr, "Warning") {
			t.Errorf("%s: %v\n%s%s", name, err, stdout, stderr)
		}
	}
	// What a person sees of them.
	table := s.kubectl(t, "get", "swsr", "-A")
	head := strings.Fields(strings.Split(table, "\n")[0])
	if want := []string{"NAMESPACE", "NAME", "HOSTS", "AUTH", "READY", "AGE"}; !slices.Equal(head, want) {
		t.Errorf("%v", head)
	}
	if !strings.Contains(table, "Unknown") {
		t.Errorf("no route says that it waits for a gateway:\n%s", table)
	}
	if text := s.kubectl(t, "explain", "swsr.spec.handshake"); !strings.Contains(text, "authentication") {
		t.Errorf("%s", text)
	}
}

// Helm against the API server alone: what it creates, keeps and takes away. No Pod runs here.
func TestHelmInstallsUpgradesRollsBackAndUninstalls(t *testing.T) {
	t.Parallel()
	s := serve(t)
	helm := func(arguments ...string) string {
		return s.run(t, "", "helm", append(arguments, "--namespace", "wssgate")...)
	}
	const all = "deployments,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,roles,rolebindings,horizontalpodautoscalers"
	names := func() []string {
		var found []string
		for _, scope := range [][]string{
			{"get", all, "-n", "wssgate", "-o", "name", "-l", "app.kubernetes.io/instance=wssgate"},
			{"get", "clusterroles,clusterrolebindings,ingressclasses", "-o", "name", "-l", "app.kubernetes.io/instance=wssgate"},
		} {
			found = append(found, strings.Fields(s.kubectl(t, scope...))...)
		}
		sort.Strings(found)
		return found
	}
	setting := func(path string) string {
		return s.kubectl(t, "get", "configmap", "wssgate", "-n", "wssgate", "-o", "jsonpath={.data.gateway\\.yaml}") + path
	}

	helm("install", "wssgate", "charts/wssgate", "--create-namespace", "--wait=hookOnly")
	s.kubectl(t, "wait", "--for=condition=Established", "crd/securewebsocketroutes.wssgate.io", "--timeout=60s")
	installed := names()
	if len(installed) != 14 {
		t.Errorf("%d objects: %v", len(installed), installed)
	}
	route := read(t, "manifests/argocd/testdata/created.yaml")
	s.namespaces(t, "shop")
	s.run(t, strings.Split(route, "status:\n")[0], "kubectl", "apply", "-f", "-")

	// There is no earlier release of the chart. What an upgrade from one would meet is an older definition and other values.
	hash := func() string {
		return s.kubectl(t, "get", "crd", "securewebsocketroutes.wssgate.io", "-o", "jsonpath={.metadata.annotations.wssgate\\.io/schema-hash}")
	}
	now := hash()
	s.kubectl(t, "annotate", "crd", "securewebsocketroutes.wssgate.io", "--overwrite", "wssgate.io/schema-hash=older")
	replicas := func() string {
		return s.kubectl(t, "get", "deployment", "wssgate", "-n", "wssgate", "-o", "jsonpath={.spec.replicas}")
	}
	template := func() string {
		return s.kubectl(t, "get", "deployment", "wssgate", "-n", "wssgate", "-o", "jsonpath={.spec.template}")
	}
	before := template()
	helm("upgrade", "wssgate", "charts/wssgate", "--set", "replicas=3,settings.perAddress=7", "--wait=hookOnly", "--force-conflicts")
	if hash() != now {
		t.Error("the upgrade leaves an older definition")
	}
	if replicas() != "3" || !strings.Contains(setting(""), "perAddress: 7") {
		t.Errorf("replicas %s\n%s", replicas(), setting(""))
	}
	if template() != before {
		t.Error("a change of settings restarts the Pods")
	}
	helm("upgrade", "wssgate", "charts/wssgate", "--values", "charts/wssgate/ci/high-availability-values.yaml", "--wait=hookOnly")
	helm("rollback", "wssgate", "1", "--wait=hookOnly")
	if found := names(); !slices.Equal(found, installed) || replicas() != "2" || !strings.Contains(setting(""), "perAddress: 100") {
		t.Errorf("after the rollback: replicas %s, %v\n%s", replicas(), found, setting(""))
	}

	helm("uninstall", "wssgate", "--wait=hookOnly")
	if left := names(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if s.kubectl(t, "get", "swsr", "-n", "shop", "-o", "name") != "securewebsocketroute.wssgate.io/chat\n" {
		t.Error("the routes are gone")
	}
	// And a new release takes over what was kept.
	helm("install", "wssgate", "charts/wssgate", "--wait=hookOnly")
	helm("uninstall", "wssgate", "--wait=hookOnly")

	// Without crds.keep the definition goes, and the routes with it; the notes warn of it.
	s.kubectl(t, "delete", "crd", "securewebsocketroutes.wssgate.io")
	helm("install", "wssgate", "charts/wssgate", "--set", "crds.keep=false", "--wait=hookOnly")
	helm("uninstall", "wssgate", "--wait=hookOnly")
	s.kubectl(t, "wait", "--for=delete", "crd/securewebsocketroutes.wssgate.io", "--timeout=60s")
}

// The first release has no predecessor. This one is made of the chart itself: an older version, whose definition does not
// know `handshake.rateLimit` yet, with another image, and without what the settings learned since.
func TestAnUpgradeFromAnOlderChartBringsTheNewDefinitionAndKeepsRoutes(t *testing.T) {
	t.Parallel()
	s := serve(t)
	older := filepath.Join(t.TempDir(), "wssgate")
	if err := os.CopyFS(older, os.DirFS(filepath.Join(root, "charts/wssgate"))); err != nil {
		t.Fatal(err)
	}
	change := func(file string, change func(o object)) {
		path := filepath.Join(older, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		o := documents(t, string(text))[0]
		change(o)
		if text, err = yaml.Marshal(o); err != nil {
			t.Fatal(err)
		}
		write(t, path, string(text))
	}
	change("Chart.yaml", func(o object) { o["version"], o["appVersion"] = "0.0.9", "0.0.9" })
	change("files/crd.yaml", func(o object) {
		handshake := at(o, "spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "properties", "handshake", "properties")
		if at(handshake, "rateLimit") == nil {
			t.Fatal("the definition has no rateLimit to leave out")
		}
		delete(handshake.(object), "rateLimit")
	})
	change("values.yaml", func(o object) { delete(o, "publishAddresses") })

	install := func(arguments ...string) {
		s.run(t, "", "helm", append(arguments, "--namespace", "wssgate", "--wait=hookOnly")...)
	}
	install("install", "wssgate", older, "--create-namespace", "--set", "settings.perAddress=7,image.repository=registry.test/wssgate")
	s.kubectl(t, "wait", "--for=condition=Established", "crd/securewebsocketroutes.wssgate.io", "--timeout=60s")
	s.namespaces(t, "shop")
	route := strings.Split(read(t, "manifests/argocd/testdata/created.yaml"), "status:\n")[0]
	s.run(t, route, "kubectl", "apply", "-f", "-")
	limit := []string{"patch", "swsr", "chat", "-n", "shop", "--type=merge", "-p", `{"spec":{"handshake":{"rateLimit":{"count":3,"interval":"1s"}}}}`}
	kept := func() string {
		s.kubectl(t, limit...)
		return s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.spec.handshake.rateLimit.count}")
	}
	if found := kept(); found != "" {
		t.Fatalf("the older definition knows rateLimit: %q", found)
	}
	uid := s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.metadata.uid}")

	// As a person does it: with the values of before.
	install("upgrade", "wssgate", "charts/wssgate", "--reset-then-reuse-values")
	for deadline := time.Now().Add(30 * time.Second); kept() != "3"; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the definition is still the older one")
		}
	}
	if uid != s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.metadata.uid}") {
		t.Error("the route is another one")
	}
	if text := s.kubectl(t, "get", "configmap", "wssgate", "-n", "wssgate", "-o", "yaml"); !strings.Contains(text, "perAddress: 7") {
		t.Errorf("the values of before are lost:\n%s", text)
	}
	pod := s.kubectl(t, "get", "deployment", "wssgate", "-n", "wssgate", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	if pod != "registry.test/wssgate:0.1.0" {
		t.Errorf("the image is %s", pod)
	}
	// Back again: routes stay, and so does what the older definition does not know, until somebody writes the route.
	install("rollback", "wssgate", "1")
	if s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.metadata.uid}") != uid {
		t.Error("the rollback lost the route")
	}
}

// The chart as it was first, packed: see previous/README.md. Its values are kept, and what it did not know is there after.
func TestAnUpgradeFromThePreviousChartKeepsRoutesAndValues(t *testing.T) {
	t.Parallel()
	s := serve(t)
	helm := func(arguments ...string) {
		s.run(t, "", "helm", append(arguments, "--namespace", "wssgate", "--wait=hookOnly")...)
	}
	field := func(kind, path string) string {
		return s.kubectl(t, "get", kind, "-n", "wssgate", "-o", "jsonpath={"+path+"}")
	}
	hash := func() string {
		return field("crd/securewebsocketroutes.wssgate.io", `.metadata.annotations.wssgate\.io/schema-hash`)
	}
	settings := func() string { return field("configmap/wssgate", `.data.gateway\.yaml`) }
	start := func() string {
		return field("deployment/wssgate", `.spec.template.metadata.annotations.wssgate\.io/start`)
	}

	previous, err := filepath.Glob(filepath.Join(root, "tests/install/previous/wssgate-*.tgz"))
	if err != nil || len(previous) != 1 {
		t.Fatalf("previous charts: %v (%v)", previous, err)
	}
	// helm runs in the root.
	helm("install", "wssgate", "tests/install/previous/"+filepath.Base(previous[0]), "--create-namespace", "--set", "settings.perAddress=7,replicas=3")
	s.kubectl(t, "wait", "--for=condition=Established", "crd/securewebsocketroutes.wssgate.io", "--timeout=60s")
	older := hash()
	if strings.Contains(settings(), "cluster:") || start() != "" {
		t.Fatalf("the previous chart is not the one that was meant:\n%s", settings())
	}
	s.namespaces(t, "shop")
	route := strings.Split(read(t, "manifests/argocd/testdata/created.yaml"), "status:\n")[0]
	s.run(t, route, "kubectl", "apply", "-f", "-")
	uid := s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.metadata.uid}")

	helm("upgrade", "wssgate", "charts/wssgate", "--reset-then-reuse-values")
	now := of(documents(t, read(t, "crds/wssgate.io_securewebsocketroutes.yaml")), "CustomResourceDefinition")
	if hash() == older || hash() != at(now[0], "metadata", "annotations", "wssgate.io/schema-hash") {
		t.Errorf("the definition is %s, and was %s", hash(), older)
	}
	for _, line := range []string{"perAddress: 7", "cluster:", "publishService:"} {
		if !strings.Contains(settings(), line) {
			t.Errorf("no %s in the settings:\n%s", line, settings())
		}
	}
	if start() == "" || field("deployment/wssgate", ".spec.replicas") != "3" {
		t.Error("the Deployment is still the older one, or has lost its value")
	}
	found := func() string {
		return s.kubectl(t, "get", "swsr", "chat", "-n", "shop", "-o", "jsonpath={.metadata.uid}")
	}
	if found() != uid {
		t.Error("the route is another one")
	}
	helm("rollback", "wssgate", "1")
	if hash() != older || strings.Contains(settings(), "cluster:") || found() != uid {
		t.Error("the rollback does not lead back, or lost the route")
	}
}

func TestTheProgramsAreThere(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl", "helm", "kubeconform"} {
		if _, err := os.Stat(program(t, name)); err != nil {
			t.Error(err)
		}
	}
}
