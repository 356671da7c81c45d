package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

type state uint8

const (
	lost state = iota
	dialling
	upgrading
	connecting
	subscribing
	open
)

// Linux: choose the port at connect(2), so that many addresses share the range of ports.
const ipBindAddressNoPort = 24

type connection struct {
	number int
	fd     int
	tries  uint32 // tells events of an earlier socket from this one's
	state  state
	next   int32  // number of the next message; -1 before the first
	offset uint64 // position in the channel, for recovery
	epoch  string
	began  int64
	rest   []byte
	failed uint8 // tries since it was open
}

type reply struct {
	ID    int `json:"id"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Connect   *struct{} `json:"connect"`
	Subscribe *struct {
		Epoch     string `json:"epoch"`
		Offset    uint64 `json:"offset"`
		Recovered bool   `json:"recovered"`
	} `json:"subscribe"`
}

func socketAddress(text string) (*syscall.SockaddrInet4, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	address := &syscall.SockaddrInet4{Port: number}
	parsed := net.ParseIP(host).To4()
	if parsed == nil || parsed[0] != 127 {
		return nil, fmt.Errorf("%s is not on this machine's loopback", text)
	}
	copy(address.Addr[:], parsed)
	return address, nil
}

func (l *loader) dial(c *connection) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd, c.state, c.rest, c.began = fd, dialling, nil, time.Now().UnixNano()
	c.tries++
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	if err := syscall.Bind(fd, l.sources[c.number%len(l.sources)]); err != nil {
		return err
	}
	target := l.targets[(c.number+int(c.tries)-1)%len(l.targets)]
	if err := syscall.Connect(fd, target); err != nil && err != syscall.EINPROGRESS {
		return err
	}
	return l.watch(fd, int32(c.number), int32(c.tries))
}

func (l *loader) user(c *connection) string { return fmt.Sprintf("u%d", l.task.First+c.number) }

func (l *loader) path(c *connection) string {
	if l.task.Secret == "" || l.task.Mode == "centrifugo" {
		return l.task.Path
	}
	return l.task.Path + "?token=" + token(l.user(c), l.task.Secret, l.expires)
}

func (l *loader) writable(c *connection) error {
	if c.state != dialling {
		return nil
	}
	if code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || code != 0 {
		return fmt.Errorf("connect: %w", syscall.Errno(code))
	}
	c.state = upgrading
	target := l.task.Targets[(c.number+int(c.tries)-1)%len(l.targets)]
	if l.task.Mode == "sse" {
		return send(c.fd, getStream(target, l.path(c)))
	}
	return send(c.fd, upgrade(target, l.path(c)))
}

func send(fd int, data []byte) error {
	written, err := syscall.Write(fd, data)
	if err == nil && written != len(data) {
		err = syscall.EAGAIN
	}
	return err
}

func (l *loader) sendText(c *connection, text []byte) error {
	l.out = clientFrame(l.out[:0], opText, text)
	return send(c.fd, l.out)
}

// readable reads what there is; edge-triggered, so until there is no more.
func (l *loader) readable(c *connection) error {
	for {
		rest := copy(l.buffer, c.rest)
		got, err := syscall.Read(c.fd, l.buffer[rest:])
		if err == syscall.EAGAIN {
			return nil
		}
		if err != nil {
			return err
		}
		if got == 0 {
			return errClosed
		}
		used, err := l.took(c, l.buffer[:rest+got])
		if err != nil {
			return err
		}
		c.rest = nil
		if left := l.buffer[used : rest+got]; len(left) > 0 {
			if len(left) > len(l.buffer)/2 {
				l.buffer = append(l.buffer, make([]byte, len(l.buffer))...)
			}
			c.rest = bytes.Clone(left)
		}
		if rest+got < len(l.buffer) {
			return nil // a short read: the socket was emptied
		}
	}
}

// took gives how many bytes of data it is done with.
func (l *loader) took(c *connection, data []byte) (int, error) {
	used := 0
	if c.state == upgrading {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			return 0, nil
		}
		if err := l.upgraded(c, data[:end]); err != nil {
			return 0, err
		}
		used = end + 4
	}
	if l.task.Mode == "sse" {
		end := bytes.LastIndexByte(data, '\n') + 1
		l.awaited -= l.take(c, data[min(used, end):end])
		return max(used, end), nil
	}
	for {
		opcode, payload, size := serverFrame(data[used:])
		if size == 0 {
			return used, nil
		}
		used += size
		if err := l.frame(c, opcode, payload); err != nil {
			return used, err
		}
	}
}

func (l *loader) upgraded(c *connection, head []byte) error {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	if l.task.Mode == "sse" {
		if !bytes.Contains(line, []byte(" 200")) {
			return fmt.Errorf("answered %s", line)
		}
		l.opened(c)
		return nil
	}
	if !bytes.Contains(line, []byte(" 101")) || !bytes.Contains(head, l.accept) {
		return fmt.Errorf("answered %s", line)
	}
	if l.task.Mode == "ws" {
		l.opened(c)
		return nil
	}
	c.state = connecting
	if l.task.Secret == "" {
		return l.sendText(c, []byte(`{"id":1,"connect":{}}`))
	}
	made := token(l.user(c), l.task.Secret, l.expires)
	return l.sendText(c, fmt.Appendf(nil, `{"id":1,"connect":{"token":"%s"}}`, made))
}

func (l *loader) frame(c *connection, opcode byte, payload []byte) error {
	switch opcode {
	case 0x80 | opText:
		if l.task.Mode == "ws" {
			l.awaited -= l.take(c, payload)
			return nil
		}
		return l.replies(c, payload)
	case 0x80 | opPing:
		l.pings++
		l.out = clientFrame(l.out[:0], opPong, payload)
		return send(c.fd, l.out)
	case 0x80 | opPong:
		return nil
	case 0x80 | opClose:
		if len(payload) >= 2 {
			l.closes[strconv.Itoa(int(binary.BigEndian.Uint16(payload)))]++
		}
		l.out = clientFrame(l.out[:0], opClose, payload)
		_ = send(c.fd, l.out)
		return errClosed
	}
	return fmt.Errorf("frame %#x is not handled", opcode)
}

// replies takes the lines of a frame by Centrifugo's protocol.
func (l *loader) replies(c *connection, text []byte) error {
	for len(text) > 0 {
		line, after, _ := bytes.Cut(text, []byte("\n"))
		text = after
		switch {
		case len(line) == 0:
		case bytes.HasPrefix(line, []byte(`{"push"`)):
			l.pushed(c, line)
		case len(line) == 2:
			l.pings++
			if err := l.sendText(c, line); err != nil {
				return err
			}
		default:
			if err := l.replied(c, line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loader) pushed(c *connection, line []byte) {
	found := l.take(c, line)
	l.awaited -= found
	if !l.task.Recover || found == 0 {
		return
	}
	if at := bytes.LastIndex(line, []byte(`"offset":`)); at >= 0 {
		start := at + len(`"offset":`)
		end := start
		for end < len(line) && line[end] >= '0' && line[end] <= '9' {
			end++
		}
		c.offset = uint64(digits(line[start:end]))
	}
}

func (l *loader) replied(c *connection, line []byte) error {
	var got reply
	if err := json.Unmarshal(line, &got); err != nil {
		return fmt.Errorf("reply %.100s: %w", line, err)
	}
	switch {
	case got.Error != nil:
		return fmt.Errorf("error %d %s", got.Error.Code, got.Error.Message)
	case c.state == connecting && got.Connect != nil:
		c.state = subscribing
		return l.sendText(c, l.subscription(c))
	case c.state == subscribing && got.Subscribe != nil:
		if c.epoch != "" && l.task.Recover && !got.Subscribe.Recovered {
			l.unrecovered++
		}
		l.take(c, line)
		c.epoch, c.offset = got.Subscribe.Epoch, got.Subscribe.Offset
		l.opened(c)
		return nil
	}
	return fmt.Errorf("unexpected %.100s", line)
}

func (l *loader) subscription(c *connection) []byte {
	if !l.task.Recover || c.epoch == "" {
		return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":"%s"}}`, l.task.Channel)
	}
	return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":"%s","recover":true,"epoch":"%s","offset":%d}}`,
		l.task.Channel, c.epoch, c.offset)
}
