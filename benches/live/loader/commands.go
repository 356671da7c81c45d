package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func (l *loader) finish(now int64) {
	done := l.doing
	l.doing = nil
	report := l.stats()
	report["seconds"] = float64(now-done.began) / 1e9
	report["missing"] = max(l.awaited, 0)
	report["bursts"] = percentiles(done.bursts)
	l.awaited = 0
	say(report)
}

func (l *loader) counted() map[string]any {
	return map[string]any{
		"open": l.openCount, "received": l.Received, "wrong": l.Wrong, "pings": l.pings,
		"unrecovered": l.unrecovered, "closes": l.closes, "errors": l.errors,
	}
}

func (l *loader) stats() map[string]any {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	report := l.counted()
	report["delays"], report["times"] = percentiles(l.delays), percentiles(l.times)
	report["lost_at"], report["back_at"] = float64(l.lostAt)/1e9, float64(l.backAt)/1e9
	report["cpu"] = float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
	return report
}

func (l *loader) reset() {
	l.counts = counts{delays: l.delays[:0]}
	l.times, l.pings, l.unrecovered, l.lostAt, l.backAt = l.times[:0], 0, 0, 0, 0
	clear(l.closes)
	clear(l.errors)
}

func say(report map[string]any) {
	line, _ := json.Marshal(report)
	os.Stdout.Write(append(line, '\n'))
}

// commands reads lines from standard input; it is over when there are no more.
func (l *loader) commands() (bool, error) {
	got, err := syscall.Read(0, l.buffer)
	if got == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	l.line = append(l.line, l.buffer[:got]...)
	for {
		line, rest, found := bytes.Cut(l.line, []byte("\n"))
		if !found {
			return false, nil
		}
		l.line = rest
		if err := l.command(strings.Fields(string(line))); err != nil {
			return false, err
		}
	}
}

func (l *loader) command(words []string) error {
	now := time.Now().UnixNano()
	switch {
	case len(words) == 2 && words[0] == "open":
		l.window, _ = strconv.Atoi(words[1])
		for _, c := range l.connections {
			if c.state == lost {
				l.queue = append(l.queue, c.number)
			}
		}
		l.doing = &doing{name: "open", began: now, deadline: now + int64(l.task.MaxDelay)*1e9}
	case len(words) == 3 && words[0] == "publish":
		left, _ := strconv.Atoi(words[1])
		burst, _ := strconv.Atoi(words[2])
		l.doing = &doing{name: "publish", began: now, left: left, burst: burst}
		l.awaited = 0
		if l.publisher == nil {
			made, err := newPublisher(l.task.Publish)
			if err != nil {
				return err
			}
			l.publisher = made
		}
	case len(words) == 1 && words[0] == "drop":
		l.drop()
	case len(words) == 1 && words[0] == "reset":
		l.reset()
		say(l.counted())
	case len(words) == 1 && words[0] == "counts":
		say(l.counted())
	case len(words) == 1 && words[0] == "stats":
		say(l.stats())
	default:
		return fmt.Errorf("unknown command %v", words)
	}
	return nil
}

func (l *loader) drop() {
	dropped := 0
	for _, c := range l.connections {
		if c.state == open {
			syscall.Close(c.fd)
			c.state, c.rest = lost, nil
			dropped++
		}
	}
	l.openCount -= dropped
	say(map[string]any{"dropped": dropped})
}
