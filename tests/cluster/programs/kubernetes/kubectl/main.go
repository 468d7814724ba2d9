// kubectl for the tests, by itself: they call it more than a thousand times, and it starts in half the time that the
// binary of all programs takes.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
)

func main() {
	os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
}
