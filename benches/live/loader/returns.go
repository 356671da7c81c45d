package main

import (
	"container/heap"
	"math/rand/v2"
)

type due struct {
	when   int64
	number int
}

type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].when < d[j].when }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(one any)      { *d = append(*d, one.(due)) }
func (d *dues) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

// returns are the connections that come back later.
type returns struct{ dues }

func (r *returns) add(when int64, number int) { heap.Push(&r.dues, due{when, number}) }

// first is when the first is due, in ns; 0 if there is none.
func (r *returns) first() int64 {
	if len(r.dues) == 0 {
		return 0
	}
	return r.dues[0].when
}

func (r *returns) due(now int64, to []int) []int {
	for len(r.dues) > 0 && r.dues[0].when <= now {
		to = append(to, heap.Pop(&r.dues).(due).number)
	}
	return to
}

const maxBackoff = 20_000 // ms

// pause is what centrifuge-js waits before it comes back: its least delay, and up to that again and
// doubled with each try that failed.
func (l *loader) pause(c *connection) int64 {
	least := l.task.Backoff
	longest := min(maxBackoff, least<<min(c.failed, 6))
	c.failed++
	return int64(min(maxBackoff, least+rand.IntN(longest+1))) * 1e6
}
