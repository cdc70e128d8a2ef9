// Package ctl runs etcdctl, as users do, against a real etcd and against kontiki, and compares what it
// prints. Differences are rows of one table, as in package wire.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"kontiki/tests/member"
)

// commandTimeout bounds one etcdctl; its own default is five seconds for a request.
const commandTimeout = 20 * time.Second

// command is one call of etcdctl.
type command struct {
	// id names it in reports and in the table.
	id string
	// arguments follow the global flags.
	arguments []string
	stdin     string
	// fails is set where etcdctl must end with an error.
	fails bool
}

func ok(id string, arguments ...string) command { return command{id: id, arguments: arguments} }

func fails(id string, arguments ...string) command {
	return command{id: id, arguments: arguments, fails: true}
}

func interactive(id, stdin string, arguments ...string) command {
	return command{id: id, arguments: arguments, stdin: stdin}
}

// commands run in this order on one pair of empty servers.
var commands = []command{
	ok("get-nothing", "get", "missing"),
	ok("put", "put", "a", "1"),
	ok("put-prev", "put", "a", "2", "--prev-kv"),
	ok("put-json", "put", "b", "3", "-w", "json"),
	ok("put-prev-json", "put", "b", "4", "--prev-kv", "-w", "json"),
	ok("put-fields", "put", "b", "5", "--prev-kv", "-w", "fields"),
	ok("put-protobuf", "put", "b", "5", "--prev-kv", "-w", "protobuf"),
	interactive("put-stdin", "from stdin", "put", "c"),
	ok("put-empty", "put", "empty", ""),
	ok("put-nested", "put", "dir/x", "x"),
	ok("put-nested-2", "put", "dir/y", "y"),
	ok("put-ignore-value", "put", "a", "--ignore-value"),
	fails("put-ignore-value-missing", "put", "missing", "--ignore-value"),
	fails("put-lease-missing", "put", "a", "1", "--lease", "abc"),
	ok("get", "get", "a"),
	ok("get-json", "get", "a", "-w", "json"),
	ok("get-fields", "get", "a", "-w", "fields"),
	ok("get-protobuf", "get", "a", "-w", "protobuf"),
	ok("get-hex", "get", "a", "--hex"),
	ok("get-print-value", "get", "a", "--print-value-only"),
	ok("get-prefix", "get", "dir/", "--prefix"),
	ok("get-everything", "get", "", "--prefix"),
	ok("get-everything-json", "get", "", "--prefix", "-w", "json"),
	ok("get-from-key", "get", "b", "--from-key"),
	ok("get-range", "get", "a", "c"),
	ok("get-keys-only", "get", "", "--prefix", "--keys-only"),
	ok("get-limit", "get", "", "--prefix", "--limit", "2"),
	ok("get-limit-json", "get", "", "--prefix", "--limit", "2", "-w", "json"),
	ok("get-limit-fields", "get", "", "--prefix", "--limit", "2", "-w", "fields"),
	ok("get-descend", "get", "", "--prefix", "--order", "DESCEND"),
	ok("get-by-value", "get", "", "--prefix", "--order", "DESCEND", "--sort-by", "VALUE", "--limit", "3"),
	ok("get-by-modify", "get", "", "--prefix", "--order", "ASCEND", "--sort-by", "MODIFY"),
	ok("get-by-create", "get", "", "--prefix", "--order", "DESCEND", "--sort-by", "CREATE"),
	ok("get-rev", "get", "a", "--rev", "2"),
	ok("get-rev-fields", "get", "", "--prefix", "--rev", "3", "-w", "fields"),
	ok("get-serializable", "get", "a", "--consistency", "s"),
	fails("get-future", "get", "a", "--rev", "99"),
	ok("del", "del", "c"),
	ok("del-nothing", "del", "c"),
	ok("del-prev", "del", "empty", "--prev-kv"),
	ok("del-prefix", "del", "dir/", "--prefix", "--prev-kv", "-w", "json"),
	ok("del-fields", "del", "missing", "-w", "fields"),
	interactive("txn-success", "mod(\"a\") > \"0\"\nvalue(\"b\") = \"5\"\n\nput t then\nget t\ndel b --prev-kv\n\nput t else\n\n", "txn", "-i"),
	interactive("txn-failure", "version(\"a\") = \"77\"\n\nput t then\n\nget t\nget a\n\n", "txn", "-i"),
	interactive("txn-json", "create(\"missing\") = \"0\"\n\nput u 1\nget u\n\n\n", "txn", "-i", "-w", "json"),
	interactive("txn-fields", "create(\"missing\") = \"0\"\n\nget u\n\n\n", "txn", "-i", "-w", "fields"),
	{id: "txn-duplicate", stdin: "\nput z 1\nput z 2\n\n\n", arguments: []string{"txn", "-i"}, fails: true},
	ok("compaction", "compaction", "5"),
	fails("compaction-again", "compaction", "5"),
	fails("compaction-future", "compaction", "99"),
	fails("get-compacted", "get", "a", "--rev", "2"),
	ok("compaction-physical", "compaction", "7", "--physical"),
	ok("get-after-compaction", "get", "", "--prefix", "-w", "json"),
	ok("endpoint-health", "endpoint", "health"),
	ok("endpoint-health-json", "endpoint", "health", "-w", "json"),
	ok("endpoint-status", "endpoint", "status"),
	ok("endpoint-status-json", "endpoint", "status", "-w", "json"),
	ok("endpoint-status-fields", "endpoint", "status", "-w", "fields"),
	ok("member-list", "member", "list"),
	ok("member-list-json", "member", "list", "-w", "json"),
	ok("member-list-fields", "member", "list", "-w", "fields"),
	ok("member-list-table", "member", "list", "-w", "table"),
	ok("alarm-list", "alarm", "list"),
	ok("del-everything", "del", "", "--prefix"),
	ok("get-at-end", "get", "", "--prefix", "-w", "json"),
}

// newerCommands need an etcdctl of 3.5 or later.
var newerCommands = []command{
	ok("get-count-only", "get", "", "--prefix", "--count-only", "-w", "fields"),
	ok("get-min-mod", "get", "", "--prefix", "--order", "ASCEND", "--sort-by", "VERSION"),
}

// difference is one intended difference: a line that reads otherwise on both sides.
type difference struct {
	// command is the id of the command, or a pattern of path.Match.
	command string
	// etcd and kontiki are regular expressions of the whole lines.
	etcd, kontiki string
	reason        string
}

// sizes and versions: the database's size and the log's indexes are the storage's own.
var differences = []difference{
	{"endpoint-status", `ENDPOINT, 8e9e05c52164694d, 3\.5\.\d+, [0-9.]+ [kM]?B, true, false, 2, \d+, \d+, `, `ENDPOINT, 8e9e05c52164694d, 3\.7\.1, [0-9.]+ [kM]?B, true, false, 2, \d+, \d+, `, "version, size and indexes"},
	{"endpoint-status-json", `(.*)"version":"3\.5\.\d+","dbSize":\d+,"leader":(\d+),"raftIndex":\d+,"raftTerm":2,"raftAppliedIndex":\d+,"dbSizeInUse":\d+}}]`, `(.*)"version":"3\.7\.1","dbSize":\d+,"leader":(\d+),"raftIndex":\d+,"raftTerm":2,"raftAppliedIndex":\d+,"dbSizeInUse":\d+}}]`, "version, size and indexes"},
	{"endpoint-status-fields", `"Version" : "3\.5\.\d+"`, `"Version" : "3\.7\.1"`, "version"},
	{"endpoint-status-fields", `"DBSize" : \d+`, `"DBSize" : \d+`, "size"},
	{"endpoint-status-fields", `"RaftIndex" : \d+`, `"RaftIndex" : \d+`, "index"},
	{"endpoint-status-fields", `"RaftAppliedIndex" : \d+`, `"RaftAppliedIndex" : \d+`, "index"},
}

// TestEtcdctl: what etcdctl prints is the same, for the fetched etcdctl and for the one of the system.
func TestEtcdctl(t *testing.T) {
	programs := []string{member.Etcdctl(t)}
	if path, err := exec.LookPath("etcdctl"); err == nil && path != programs[0] {
		programs = append(programs, path)
	}
	strict := member.Same(t, member.Reference(t), member.Subject(t))
	for _, program := range programs {
		version := versionOf(t, program)
		t.Run(version, func(t *testing.T) {
			etcd, kontiki := member.Pair(t, member.Options{})
			list := commands
			if !strings.HasPrefix(version, "3.4.") {
				list = append(append([]command{}, commands...), newerCommands...)
			}
			for _, one := range list {
				left, right := run(t, program, etcd, one), run(t, program, kontiki, one)
				if left.failed != one.fails {
					t.Errorf("%s: etcd was expected to fail: %v, and printed\n%s%s", one.id, one.fails, left.stdout, left.message)
				}
				for _, report := range compare(one.id, left, right, strict) {
					t.Errorf("%s: etcdctl %s: %s", one.id, strings.Join(one.arguments, " "), report)
				}
			}
			fmt.Printf("etcdctl %s: %d commands compared\n", version, len(list))
		})
	}
}

func versionOf(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.Command(program, "version").Output()
	if err != nil {
		t.Fatalf("%s version: %v", program, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(first, "etcdctl version: ")
}

// printed is what a user sees of one command.
type printed struct {
	stdout string
	// message is the error that etcdctl ends with.
	message string
	failed  bool
}

var (
	took = regexp.MustCompile(`(took = |"took":")[^"\n]*`)
)

func run(t *testing.T, program string, m *member.Member, one command) printed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--endpoints", m.Address}, one.arguments...)...)
	cmd.Stdin = strings.NewReader(one.stdin)
	// The system's etcdctl needs to be told which API to speak.
	cmd.Env = []string{"ETCDCTL_API=3", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", program, err)
	}
	result := printed{stdout: neutral(stdout.String(), m), failed: err != nil}
	for _, line := range strings.Split(neutral(stderr.String(), m), "\n") {
		// Log lines of the client library carry times and addresses of its own.
		if !strings.HasPrefix(line, "{") {
			result.message += line + "\n"
		}
	}
	return result
}

// neutral takes out what must differ: the address that was asked, and how long it took.
func neutral(text string, m *member.Member) string {
	return took.ReplaceAllString(strings.ReplaceAll(text, m.Address, "ENDPOINT"), "${1}TIME")
}

func compare(id string, etcd, kontiki printed, strict bool) []string {
	var reports []string
	if etcd.failed != kontiki.failed {
		reports = append(reports, fmt.Sprintf("etcd failed: %v, kontiki failed: %v", etcd.failed, kontiki.failed))
	}
	for name, texts := range map[string][2]string{"stdout": {etcd.stdout, kontiki.stdout}, "stderr": {etcd.message, kontiki.message}} {
		left, right := strings.Split(texts[0], "\n"), strings.Split(texts[1], "\n")
		for i := range max(len(left), len(right)) {
			a, b := line(left, i), line(right, i)
			if a != b && !allowed(id, a, b, strict) {
				reports = append(reports, fmt.Sprintf("%s line %d:\n  etcd    %q\n  kontiki %q", name, i+1, a, b))
			}
		}
	}
	return reports
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "<no line>"
}

// allowed tells whether a row covers two lines; what its groups catch must agree.
func allowed(id, etcd, kontiki string, strict bool) bool {
	for _, row := range differences {
		if named, err := path.Match(row.command, id); err != nil || !named {
			continue
		}
		other := row.kontiki
		if strict {
			other = row.etcd
		}
		left := regexp.MustCompile("^(?:" + row.etcd + ")$").FindStringSubmatch(etcd)
		right := regexp.MustCompile("^(?:" + other + ")$").FindStringSubmatch(kontiki)
		if left != nil && right != nil && strings.Join(left[1:], "\x00") == strings.Join(right[1:], "\x00") {
			return true
		}
	}
	return false
}
