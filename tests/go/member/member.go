// Package member starts one-member clusters of two kinds, a real etcd and kontiki, with the same
// flags, so that a test can put the same questions to both.
//
// Every process is ended by its process id when the test that started it ends, its log is kept in the
// test's own directory and printed when the test failed.
package member

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// readyTimeout bounds the wait for a member to serve; generous, for loaded machines.
	readyTimeout = 60 * time.Second
	// stopTimeout bounds the wait after SIGTERM before SIGKILL.
	stopTimeout = 15 * time.Second
	// readyLine is the log message of etcd that other tools wait for, too.
	readyLine = "ready to serve client requests"
	// FixedClientURL is advertised by both kinds where a test compares answers that hold the URL.
	FixedClientURL = "http://127.0.0.1:2379"
	// FixedPeerURL decides the member id and the cluster id, together with the cluster token.
	FixedPeerURL = "http://localhost:2380"
)

// Kind says which server answers.
type Kind struct {
	// Name is "etcd" or "kontiki".
	Name string
	// Binary is the server's path.
	Binary string
}

// Reference is the real etcd: ETCD_BIN, or the one that tools/fetch-etcd fetches.
func Reference(t testing.TB) Kind {
	t.Helper()
	if path := os.Getenv("ETCD_BIN"); path != "" {
		return Kind{Name: "etcd", Binary: path}
	}
	return Kind{Name: "etcd", Binary: fetched(t, "etcd")}
}

// Subject is the server under test: KONTIKI_BIN, or the debug build of this checkout.
func Subject(t testing.TB) Kind {
	t.Helper()
	path := os.Getenv("KONTIKI_BIN")
	if path == "" {
		path = filepath.Join(repository(t), "target", "debug", "kontiki")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no server to test at %s: run `cargo build` first, or set KONTIKI_BIN", path)
	}
	return Kind{Name: "kontiki", Binary: path}
}

// Same tells whether two kinds are the same program. With an etcd as the server under test the tests check
// themselves: everything must agree, and no difference is allowed.
func Same(t testing.TB, a, b Kind) bool {
	t.Helper()
	return a.version(t) == b.version(t)
}

func (k Kind) version(t testing.TB) string {
	t.Helper()
	out, err := exec.Command(k.Binary, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("%s --version: %v\n%s", k.Binary, err, out)
	}
	return string(out)
}

// Etcdctl is the etcdctl that came with the reference: ETCDCTL_BIN, or the fetched one.
func Etcdctl(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("ETCDCTL_BIN"); path != "" {
		return path
	}
	return fetched(t, "etcdctl")
}

// fetched is a binary below target/etcd, fetched on first use.
func fetched(t testing.TB, name string) string {
	t.Helper()
	root := repository(t)
	path := filepath.Join(root, "target", "etcd", "usr", "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.Command(filepath.Join(root, "tools", "fetch-etcd")).CombinedOutput()
	if err != nil {
		t.Fatalf("tools/fetch-etcd: %v\n%s", err, out)
	}
	return path
}

// repository is the root of the checkout: the directory above that holds tools/fetch-etcd.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tools", "fetch-etcd")); err == nil {
			return dir
		}
	}
	t.Fatal("these tests run inside a checkout: tools/fetch-etcd was not found above the working directory")
	return ""
}

// Options of one start. The zero value is what most tests want.
type Options struct {
	// AdvertiseOwnURL advertises the URL that the member really listens on, for clients that follow
	// the member list. Otherwise FixedClientURL is advertised, so that answers agree.
	AdvertiseOwnURL bool
	// Flags are added to the command line of both kinds.
	Flags []string
}

// Member is one running server.
type Member struct {
	// Kind says which server it is.
	Kind Kind
	// Address is host:port of the client listener.
	Address string
	// DataDir is its data directory.
	DataDir string
}

// URL is the client URL.
func (m *Member) URL() string { return "http://" + m.Address }

// Pair starts a reference and a subject at the same time, both empty.
func Pair(t testing.TB, options Options) (reference, subject *Member) {
	t.Helper()
	kinds := []Kind{Reference(t), Subject(t)}
	processes := make([]*process, len(kinds))
	for i, kind := range kinds {
		processes[i] = launch(t, kind, options)
	}
	for _, p := range processes {
		p.awaitReady(t)
	}
	return processes[0].member, processes[1].member
}

// Start starts one empty member of a kind and waits until it serves.
func Start(t testing.TB, kind Kind, options Options) *Member {
	t.Helper()
	p := launch(t, kind, options)
	p.awaitReady(t)
	return p.member
}

type process struct {
	member *Member
	cmd    *exec.Cmd
	log    *logFile
	exited chan struct{}
	// exit is set before exited is closed.
	exit error
}

func launch(t testing.TB, kind Kind, options Options) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "kontiki-tests-"+kind.Name+"-")
	if err != nil {
		t.Fatal(err)
	}
	client, peer := freeAddress(t), freeAddress(t)
	member := &Member{Kind: kind, Address: client, DataDir: filepath.Join(dir, "data")}
	advertised := FixedClientURL
	if options.AdvertiseOwnURL {
		advertised = member.URL()
	}
	arguments := []string{
		"--name", "default",
		"--data-dir", member.DataDir,
		"--listen-client-urls", member.URL(),
		"--advertise-client-urls", advertised,
		"--listen-peer-urls", "http://" + peer,
		"--initial-advertise-peer-urls", FixedPeerURL,
		"--initial-cluster", "default=" + FixedPeerURL,
	}
	arguments = append(arguments, options.Flags...)
	cmd := exec.Command(kind.Binary, arguments...)
	cmd.Dir = dir
	cmd.Env = withoutEtcdVariables(os.Environ())
	log, err := newLogFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	// The server must not outlive a test process that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", kind.Binary, err)
	}
	p := &process{member: member, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		p.exit = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s %s\n%s", kind.Binary, strings.Join(arguments, " "), log.tail())
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

// stop ends the process by its id: SIGTERM, and SIGKILL when that does not help in time.
func (p *process) stop(t testing.TB) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		t.Errorf("%s did not stop within %v of SIGTERM", p.member.Kind.Name, stopTimeout)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.log.close()
}

// awaitReady waits for the log line, for /health, and for the cluster version to be decided: from then
// on the member's answers do not change by themselves.
func (p *process) awaitReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	select {
	case <-p.log.ready:
	case <-p.exited:
		t.Fatalf("%s exited before it was ready: %v", p.member.Kind.Name, p.exit)
	case <-ctx.Done():
		t.Fatalf("%s did not log %q within %v", p.member.Kind.Name, readyLine, readyTimeout)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !p.member.settled(ctx) {
		select {
		case <-tick.C:
		case <-p.exited:
			t.Fatalf("%s exited before it was healthy: %v", p.member.Kind.Name, p.exit)
		case <-ctx.Done():
			t.Fatalf("%s was not healthy within %v", p.member.Kind.Name, readyTimeout)
		}
	}
}

// settled tells whether the member is healthy and knows the cluster version.
func (m *Member) settled(ctx context.Context) bool {
	var health struct {
		Health string `json:"health"`
	}
	if m.getJSON(ctx, "/health", &health) != nil || health.Health != "true" {
		return false
	}
	var version struct {
		Cluster string `json:"etcdcluster"`
	}
	return m.getJSON(ctx, "/version", &version) == nil && version.Cluster != "not_decided"
}

func (m *Member) getJSON(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL()+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	return json.Unmarshal(body, into)
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// withoutEtcdVariables keeps the machine's own settings for etcd and etcdctl out of the tests.
func withoutEtcdVariables(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		if !strings.HasPrefix(entry, "ETCD_") && !strings.HasPrefix(entry, "ETCDCTL_") && !strings.HasPrefix(entry, "KONTIKI_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// logFile keeps what a server writes, and tells when the ready line has passed.
type logFile struct {
	mutex sync.Mutex
	file  *os.File
	line  []byte
	seen  bool
	// ready is closed at the ready line.
	ready chan struct{}
}

func newLogFile(path string) (*logFile, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &logFile{file: file, ready: make(chan struct{})}, nil
}

// Write implements io.Writer for the process's output.
func (l *logFile) Write(chunk []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !l.seen {
		// The ready line may arrive in pieces.
		l.line = append(l.line, chunk...)
		if bytes.Contains(l.line, []byte(readyLine)) {
			l.seen, l.line = true, nil
			close(l.ready)
		} else if last := bytes.LastIndexByte(l.line, '\n'); last >= 0 {
			l.line = append([]byte(nil), l.line[last+1:]...)
		}
	}
	return l.file.Write(chunk)
}

// tail is the end of the log, enough to see why a server misbehaved.
func (l *logFile) tail() string {
	const size = 32 << 10
	content, err := os.ReadFile(l.file.Name())
	if err != nil {
		return err.Error()
	}
	if len(content) > size {
		content = content[len(content)-size:]
	}
	return string(content)
}

func (l *logFile) close() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_ = l.file.Close()
}
