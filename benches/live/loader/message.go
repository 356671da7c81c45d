package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	messageSize = 100
	timeDigits  = 19
	numberAt    = timeDigits + len(`,"n":"`)
	numberSize  = 8
)

var marker = []byte(`{"t":`)

// message is an object of 100 bytes with the time and a number, legal as text and as JSON.
func message(number int) []byte {
	start := fmt.Sprintf(`{"t":%019d,"n":"%08d","p":"`, time.Now().UnixNano(), number)
	return []byte(start + strings.Repeat("x", messageSize-len(start)-2) + `"}`)
}

func digits(text []byte) int64 {
	value := int64(0)
	for _, digit := range text {
		value = value*10 + int64(digit-'0')
	}
	return value
}

// counts is what was received since the last reset.
type counts struct {
	Received int64
	Wrong    int64 // not the next number of its connection: lost, twice, or out of order
	delays   []int32
}

// take counts the messages in text and gives how many they are.
func (c *counts) take(from *connection, text []byte) int {
	found, now := 0, int64(0)
	for {
		at := bytes.Index(text, marker)
		if at < 0 || len(text) < at+len(marker)+numberAt+numberSize {
			return found
		}
		if now == 0 {
			now = time.Now().UnixNano()
		}
		text = text[at+len(marker):]
		number := int32(digits(text[numberAt : numberAt+numberSize]))
		if from.next >= 0 && number != from.next {
			c.Wrong++
		}
		from.next = number + 1
		c.delays = append(c.delays, int32((now-digits(text[:timeDigits]))/1000))
		found++
		c.Received++
	}
}

// percentiles of delays in µs, in milliseconds; they are sorted by it.
func percentiles(delays []int32) map[string]float64 {
	slices.Sort(delays)
	at := func(share float64) float64 {
		if len(delays) == 0 {
			return 0
		}
		return float64(delays[min(len(delays)-1, int(float64(len(delays))*share))]) / 1000
	}
	return map[string]float64{"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
}
