package install

import (
	"os"
	"path/filepath"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"
)

// healthCases is Argo CD's own form of health_test.yaml.
type healthCases struct {
	Tests []struct {
		InputPath    string `json:"inputPath"`
		HealthStatus struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"healthStatus"`
	} `json:"tests"`
}

// Argo CD gives the script the object as `obj`, lets it use the base, table and string libraries, and takes a table.
func health(t *testing.T, script string, o object) (string, string) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	state.SetGlobal("obj", value(state, o))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returns %v", state.Get(-1))
	}
	return lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))
}

func value(state *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case int64:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case []any:
		table := state.NewTable()
		for _, item := range v {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range v {
			table.RawSetString(key, value(state, item))
		}
		return table
	}
	panic("no such value in YAML")
}

func TestArgoCDSeesTheHealthOfARoute(t *testing.T) {
	folder := filepath.Join(root, "manifests/argocd")
	script, err := os.ReadFile(filepath.Join(folder, "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	var cases healthCases
	if err := yaml.UnmarshalStrict([]byte(read(t, "manifests/argocd/health_test.yaml")), &cases); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, test := range cases.Tests {
		seen[test.InputPath] = true
		input := documents(t, read(t, "manifests/argocd/"+test.InputPath))[0]
		status, message := health(t, string(script), input)
		if status != test.HealthStatus.Status || message != test.HealthStatus.Message {
			t.Errorf("%s: %s %q, not %s %q", test.InputPath, status, message, test.HealthStatus.Status, test.HealthStatus.Message)
		}
	}
	files, _ := filepath.Glob(filepath.Join(folder, "testdata/*.yaml"))
	if len(files) < 7 || len(files) != len(seen) {
		t.Errorf("%d files of test data, %d of them used", len(files), len(seen))
	}
}

func TestTheInstructionsForArgoCDCarryTheScript(t *testing.T) {
	script := read(t, "manifests/argocd/health.lua")
	patch := documents(t, read(t, "manifests/argocd/argocd-cm.yaml"))[0]
	if at(patch, "data", "resource.customizations.health.wssgate.io_SecureWebSocketRoute") != script {
		t.Error("manifests/argocd/argocd-cm.yaml has another script than health.lua")
	}
}
