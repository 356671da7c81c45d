package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

const (
	opContinuation = 0
	opText         = 1
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

const handshakeKey = "eWVscGF6ZSBiZW5jaCBrZQ=="

// RFC 6455 5.3 wants a fresh mask for each frame against caches in between; there are none on loopback.
var mask = [4]byte{0x5a, 0x17, 0xc3, 0x9e}

func acceptValue() string {
	sum := sha1.Sum([]byte(handshakeKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func upgrade(target, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", path, target, handshakeKey)
}

func getStream(target, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", path, target)
}

// clientFrame appends a final frame with its payload masked.
func clientFrame(to []byte, opcode byte, payload []byte) []byte {
	to = append(to, 0x80|opcode)
	switch size := len(payload); {
	case size < 126:
		to = append(to, 0x80|byte(size))
	case size < 1<<16:
		to = append(to, 0x80|126, byte(size>>8), byte(size))
	default:
		to = append(to, 0x80|127)
		to = binary.BigEndian.AppendUint64(to, uint64(size))
	}
	to = append(to, mask[:]...)
	for index, value := range payload {
		to = append(to, value^mask[index&3])
	}
	return to
}

// serverFrame gives the first frame of data and its whole size; 0 if there is not enough yet.
func serverFrame(data []byte) (opcode byte, payload []byte, size int) {
	if len(data) < 2 {
		return 0, nil, 0
	}
	head, length := 2, int(data[1]&0x7f)
	switch length {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	if len(data) < head {
		return 0, nil, 0
	}
	switch length {
	case 126:
		length = int(binary.BigEndian.Uint16(data[2:]))
	case 127:
		length = int(binary.BigEndian.Uint64(data[2:]))
	}
	if len(data) < head+length {
		return 0, nil, 0
	}
	return data[0] & 0x8f, data[head : head+length], head + length
}

// token is an HS256 JWT for that user, which does not expire while a bench runs.
func token(user, secret string, expires int64) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":"%s","exp":%d}`, user, expires))
	code := hmac.New(sha256.New, []byte(secret))
	code.Write([]byte(signed))
	return signed + "." + encode(code.Sum(nil))
}
