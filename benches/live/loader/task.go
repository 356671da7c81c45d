package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Task is what one loader is told at its start, as JSON in its first argument.
type Task struct {
	Targets  []string `json:"targets"`  // "127.0.0.1:8000"; connections take them by turns
	Mode     string   `json:"mode"`     // "ws", "sse" or "centrifugo"
	Path     string   `json:"path"`     // of the upgrade or of the stream
	Channel  string   `json:"channel"`  // subscribed to, by Centrifugo's protocol
	Secret   string   `json:"secret"`   // of HS256 tokens, one for each connection; empty: none
	Count    int      `json:"count"`    // connections
	First    int      `json:"first"`    // number of the first, for users' names
	Sources  []string `json:"sources"`  // client addresses, taken by turns
	Recover  bool     `json:"recover"`  // ask for what was missed
	Backoff  int      `json:"backoff"`  // ms before a lost connection comes back, doubled with each try; 0: stays lost
	NapUs    int      `json:"nap_us"`   // sleep between looks while messages are awaited
	Seconds  int      `json:"seconds"`  // this process ends by itself after so long
	Publish  Publish  `json:"publish"`  // how messages are sent
	MaxDelay int      `json:"max_wait"` // seconds to wait for a message's deliveries
}

// Publish says how this server is told to send something to everybody.
type Publish struct {
	Way     string `json:"way"`     // "ws": a frame on a WebSocket; "http": Centrifugo's server API
	Target  string `json:"target"`  // "127.0.0.1:8000"
	Path    string `json:"path"`    // of that WebSocket
	Channel string `json:"channel"` // of that message
	Key     string `json:"key"`     // X-API-Key
}

func taskFromArguments() (*Task, error) {
	if len(os.Args) != 2 {
		return nil, errors.New("loader TASK, a JSON object")
	}
	task := &Task{Seconds: 600, MaxDelay: 60}
	if err := json.Unmarshal([]byte(os.Args[1]), task); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	if len(task.Targets) == 0 || len(task.Sources) == 0 || task.Count < 1 {
		return nil, errors.New("task: targets, sources and count are needed")
	}
	return task, nil
}
