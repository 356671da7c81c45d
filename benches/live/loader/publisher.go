package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// publisher sends messages by a connection of its own, and waits for the answer where there is one.
type publisher struct {
	way    Publish
	socket net.Conn
	reader *bufio.Reader
	number int
}

func newPublisher(way Publish) (*publisher, error) {
	socket, err := net.DialTimeout("tcp", way.Target, 10*time.Second)
	if err != nil {
		return nil, err
	}
	made := &publisher{way: way, socket: socket, reader: bufio.NewReader(socket)}
	if way.Way == "http" {
		return made, nil
	}
	if _, err := socket.Write(upgrade(way.Target, way.Path)); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(made.reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("publisher: %v %w", answer, errors.Join(err, errClosed))
	}
	return made, nil
}

// bytes of so many messages at once: frames, or one request.
func (p *publisher) bytes(burst int) []byte {
	var frames []byte
	var commands [][]byte
	for range burst {
		text := message(p.number)
		p.number++
		if p.way.Way == "ws" {
			frames = clientFrame(frames, opText, text)
			continue
		}
		commands = append(commands, fmt.Appendf(nil, `{"channel":"%s","data":%s}`, p.way.Channel, text))
	}
	if p.way.Way == "ws" {
		return frames
	}
	if burst == 1 {
		return p.request("/api/publish", commands[0])
	}
	body := append([]byte(`{"commands":[{"publish":`), bytes.Join(commands, []byte(`},{"publish":`))...)
	return p.request("/api/batch", append(body, `}]}`...))
}

func (p *publisher) request(path string, body []byte) []byte {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, p.way.Target, p.way.Key, len(body))
	return append(head, body...)
}

func (p *publisher) send(data []byte) error {
	_, err := p.socket.Write(data)
	return err
}

// answered waits for the answer to the last request; deliveries may come before it.
func (p *publisher) answered() error {
	if p.way.Way == "ws" {
		return nil
	}
	_ = p.socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	answer, err := http.ReadResponse(p.reader, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || bytes.Contains(body, []byte(`"error":{`)) {
		return fmt.Errorf("publish: %d %.200s %w", answer.StatusCode, body, errors.Join(err, errClosed))
	}
	return nil
}
