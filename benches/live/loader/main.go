// Loader opens many WebSocket or SSE connections to one server of a bench, and counts what they receive.
//
// One thread reads all sockets by epoll and keeps a few hundred bytes for each, so that it costs the
// servers that share its machine as little as possible. It is told what to do by lines on its standard
// input, and answers each with a line of JSON:
//
//	open N         connect those that are not, N at a time, until all are there
//	publish N B    N times: send B messages at once, wait until each connection has them all
//	drop           close every connection
//	reset          forget what was counted
//	counts         what was counted
//	stats          the same, with latencies, which it takes time to sort
//
// It ends when its input does.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	stdin  = -1
	events = 1024
)

var errClosed = errors.New("closed")

type loader struct {
	counts
	task        *Task
	epoll       int
	targets     []*syscall.SockaddrInet4
	sources     []*syscall.SockaddrInet4
	connections []*connection
	publisher   *publisher
	accept      []byte
	expires     int64
	buffer, out []byte
	line        []byte

	queue       []int // numbers to be dialled now
	later       returns
	underWay    int
	window      int // of them under way at most
	openCount   int
	awaited     int // deliveries
	pings       int64
	unrecovered int64
	times       []int32 // µs from dialling to open
	closes      map[string]int
	errors      map[string]int
	lostAt      int64 // when the first was lost
	backAt      int64 // when the last was opened

	doing *doing
}

// doing is the command under way.
type doing struct {
	name      string
	began     int64
	left      int // bursts
	burst     int
	deadline  int64
	bursts    []int32 // µs of each, from sending to the last delivery
	burstFrom int64
}

func main() {
	task, err := taskFromArguments()
	if err == nil {
		err = run(task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
}

func run(task *Task) error {
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	debug.SetGCPercent(400)
	l := &loader{
		task:    task,
		accept:  []byte(acceptValue()),
		expires: time.Now().Unix() + 86_400,
		buffer:  make([]byte, 1<<16),
		closes:  map[string]int{},
		errors:  map[string]int{},
	}
	if err := l.prepare(); err != nil {
		return err
	}
	defer l.leave()
	return l.loop(time.Now().Add(time.Duration(task.Seconds) * time.Second))
}

// leave says good-bye as the publisher, whose end servers would otherwise report as a fault.
func (l *loader) leave() {
	if l.publisher != nil && l.publisher.way.Way == "ws" {
		_ = l.publisher.send(clientFrame(nil, opClose, []byte{3, 232}))
	}
}

func (l *loader) prepare() error {
	for _, text := range l.task.Targets {
		address, err := socketAddress(text)
		if err != nil {
			return err
		}
		l.targets = append(l.targets, address)
	}
	for _, text := range l.task.Sources {
		address, err := socketAddress(text + ":0")
		if err != nil {
			return err
		}
		l.sources = append(l.sources, address)
	}
	made := make([]connection, l.task.Count)
	for number := range made {
		made[number] = connection{number: number, next: -1}
		l.connections = append(l.connections, &made[number])
	}
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	l.epoll = epoll
	_ = syscall.SetNonblock(0, true)
	return l.watch(0, stdin, 0)
}

func (l *loader) watch(fd int, number, tries int32) error {
	const edge = 1 << 31 // syscall.EPOLLET, which is negative there
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: number, Pad: tries}
	if number != stdin {
		event.Events |= syscall.EPOLLOUT | edge
	}
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event)
}

func (l *loader) loop(ends time.Time) error {
	ready := make([]syscall.EpollEvent, events)
	for {
		count, err := syscall.EpollWait(l.epoll, ready, l.patience())
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, event := range ready[:max(count, 0)] {
			if event.Fd == stdin {
				if over, err := l.commands(); over || err != nil {
					return err
				}
				continue
			}
			l.happened(event)
		}
		if err := l.proceed(count <= 0); err != nil {
			return err
		}
		if time.Now().After(ends) {
			return errors.New("its time is over")
		}
	}
}

// patience is how long epoll may wait, in ms. Where messages are awaited it is not waited for them: a
// reader asleep in epoll_wait costs the server its wake-up, which clients elsewhere would not.
func (l *loader) patience() int {
	if l.awaited > 0 && l.task.NapUs > 0 {
		return 0
	}
	if when := l.later.first(); when > 0 {
		return int(min(max((when-time.Now().UnixNano())/1e6, 0)+1, 1000))
	}
	return 1000
}

func (l *loader) happened(event syscall.EpollEvent) {
	c := l.connections[event.Fd]
	if c.state == lost || c.tries != uint32(event.Pad) {
		return
	}
	var err error
	if event.Events&syscall.EPOLLOUT != 0 {
		err = l.writable(c)
	}
	if err == nil && event.Events&^syscall.EPOLLOUT != 0 {
		err = l.readable(c)
	}
	if err != nil {
		l.lose(c, err)
	}
}

func (l *loader) opened(c *connection) {
	now := time.Now().UnixNano()
	c.state, c.failed = open, 0
	l.times = append(l.times, int32((now-c.began)/1000))
	l.openCount++
	l.underWay--
	l.backAt = now
}

func (l *loader) lose(c *connection, err error) {
	if c.state == open {
		l.openCount--
		if l.lostAt == 0 {
			l.lostAt = time.Now().UnixNano()
		}
	} else {
		l.underWay--
	}
	if err != errClosed || c.state != open {
		l.errors[err.Error()]++
	}
	syscall.Close(c.fd)
	c.state, c.rest = lost, nil
	if l.task.Backoff > 0 {
		l.later.add(time.Now().UnixNano()+l.pause(c), c.number)
	}
}

// dialMore keeps as many connections under way as it may.
func (l *loader) dialMore() {
	for len(l.queue) > 0 && l.underWay < l.window {
		c := l.connections[l.queue[0]]
		l.queue = l.queue[1:]
		if c.state != lost {
			continue
		}
		l.underWay++
		if err := l.dial(c); err != nil {
			l.lose(c, err)
		}
	}
}

// proceed does what is due after a look at the sockets.
func (l *loader) proceed(idle bool) error {
	if l.later.first() > 0 {
		l.queue = l.later.due(time.Now().UnixNano(), l.queue)
	}
	l.dialMore()
	if l.doing == nil {
		return nil
	}
	now := time.Now().UnixNano()
	if l.doing.name == "open" {
		failed := l.task.Backoff == 0 && l.underWay == 0 && len(l.queue) == 0
		if l.openCount == l.task.Count || failed || now > l.doing.deadline {
			l.finish(now)
		}
		return nil
	}
	if l.awaited <= 0 || now > l.doing.deadline {
		return l.nextBurst(now)
	}
	if idle && l.task.NapUs > 0 {
		pause := syscall.NsecToTimespec(int64(l.task.NapUs) * 1000)
		_ = syscall.Nanosleep(&pause, nil)
	}
	return nil
}

func (l *loader) nextBurst(now int64) error {
	if l.doing.burstFrom > 0 {
		if err := l.publisher.answered(); err != nil {
			return err
		}
		l.doing.bursts = append(l.doing.bursts, int32((now-l.doing.burstFrom)/1000))
	}
	if l.doing.left == 0 || l.awaited > 0 {
		l.finish(now)
		return nil
	}
	l.doing.left--
	l.doing.burstFrom = time.Now().UnixNano()
	l.doing.deadline = l.doing.burstFrom + int64(l.task.MaxDelay)*1e9
	l.awaited = l.openCount * l.doing.burst
	return l.publisher.send(l.publisher.bytes(l.doing.burst))
}
