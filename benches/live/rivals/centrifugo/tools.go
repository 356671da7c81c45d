//go:build tools

// Package tools pins the version of Centrifugo that the benches build.
package tools

import _ "github.com/centrifugal/centrifugo/v5"
