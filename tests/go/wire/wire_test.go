// Package wire puts one script of requests to a real etcd and to kontiki, as raw gRPC and HTTP, and
// compares everything a client can see: every field of every answer, codes, messages, metadata, trailers.
//
// The script is data: chapters of steps. Each chapter runs on two fresh members, so that revisions in it
// can be read as plain numbers. What differs on purpose is in the table `differences`, and nowhere else.
package wire

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"kontiki/tests/member"
)

// requestsMin is how many requests the script holds at least; losing a part of it must not go unnoticed.
const requestsMin = 300

// historyMax bounds the revisions that are read back at the end of a chapter.
const historyMax = 200

// chapter is a part of the script with two members of its own.
type chapter struct {
	name string
	// flags are added to both servers' command lines.
	flags []string
	steps []step
}

// chapters are the script.
func chapters() []chapter {
	return []chapter{
		{name: "range", steps: rangeSteps()},
		{name: "interval", steps: intervalSteps()},
		{name: "put", steps: putSteps()},
		{name: "delete", steps: deleteSteps()},
		{name: "compare", steps: compareSteps()},
		{name: "txn", steps: txnSteps()},
		{name: "unseen", steps: unseenSteps()},
		{name: "compact", steps: compactSteps()},
		{name: "limits", steps: limitSteps()},
		{name: "small", flags: []string{"--max-txn-ops", "3", "--max-request-bytes", "2048"}, steps: smallSteps()},
		{name: "protocol", steps: protocolSteps()},
		{name: "member", steps: memberSteps()},
		{name: "newer", steps: newerSteps()},
		{name: "random", steps: randomSteps()},
	}
}

// TestScript: every answer of kontiki agrees with etcd's in every field.
func TestScript(t *testing.T) {
	script := chapters()
	checkIDs(t, script)
	strict := member.Same(t, member.Reference(t), member.Subject(t))
	rows := newLedger(differences, strict)
	asked := 0
	for _, part := range script {
		t.Run(part.name, func(t *testing.T) {
			asked += runChapter(t, part, rows)
		})
	}
	// A part of the script, chosen with -run, cannot need all rows.
	whole := flag.Lookup("test.run").Value.String() == "" || flag.Lookup("test.run").Value.String() == "TestScript"
	if whole && !t.Failed() {
		for _, row := range rows.unused() {
			t.Error(row)
		}
	}
	if whole && asked < requestsMin {
		t.Errorf("the script asked %d requests, it must ask at least %d", asked, requestsMin)
	}
	summary := fmt.Sprintf("script: %d requests in %d chapters, %d answers compared (history read back included), %d fields agree, %d intended differences",
		asked, len(script), rows.compared, rows.fields, len(rows.rows))
	if strict {
		summary += "; checked etcd against itself"
	}
	t.Log(summary)
	fmt.Println(summary)
}

// runChapter puts one chapter to two fresh members and returns how many of its steps were asked.
func runChapter(t *testing.T, part chapter, rows *ledger) int {
	etcd, kontiki := member.Pair(t, member.Options{Flags: part.flags})
	toEtcd, toKontiki := connect(t, etcd), connect(t, kontiki)
	asked := 0
	for _, s := range part.steps {
		if s.newer != nil {
			if !rows.strict {
				askNewer(t, s, rows, etcd, toEtcd, kontiki, toKontiki)
				asked++
			}
			continue
		}
		left, right := mustAsk(t, toEtcd, etcd, s), mustAsk(t, toKontiki, kontiki, s)
		asked++
		if left == nil || right == nil {
			continue
		}
		if verdict := left.verdict(); verdict != s.want && !s.undecided {
			t.Errorf("%s: etcd was expected to answer %s, and answered %s", s.id, quoted(s.want), quoted(verdict))
		}
		report(t, s, rows.compare(s.id, left, right))
	}
	readBack(t, part, rows, etcd, toEtcd, kontiki, toKontiki)
	return asked
}

// askNewer judges a step that the reference is too old for.
func askNewer(t *testing.T, s step, rows *ledger, etcd *member.Member, toEtcd *grpc.ClientConn, kontiki *member.Member, toKontiki *grpc.ClientConn) {
	t.Helper()
	right := mustAsk(t, toKontiki, kontiki, s)
	if right == nil {
		return
	}
	if s.newer.equivalent != nil {
		if left := mustAsk(t, toEtcd, etcd, *s.newer.equivalent); left != nil {
			report(t, s, rows.compare(s.id, left, right))
		}
		return
	}
	if verdict := right.verdict(); verdict != s.want {
		t.Errorf("%s (as of etcd %s): expected %s, kontiki answered %s", s.id, s.newer.since, quoted(s.want), quoted(verdict))
	}
}

// readBack compares the whole content at every revision that the chapter made: an answer that looked
// right and a store that is wrong do not go together for long.
func readBack(t *testing.T, part chapter, rows *ledger, etcd *member.Member, toEtcd *grpc.ClientConn, kontiki *member.Member, toKontiki *grpc.ClientConn) {
	t.Helper()
	for revision := int64(0); revision < historyMax; revision++ {
		s := step{
			id:      fmt.Sprintf("%s/history-%d", part.name, revision),
			method:  kvRange,
			request: &etcdserverpb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: revision},
		}
		left, right := mustAsk(t, toEtcd, etcd, s), mustAsk(t, toKontiki, kontiki, s)
		if left == nil || right == nil {
			return
		}
		report(t, s, rows.compare(s.id, left, right))
		if strings.HasSuffix(left.verdict(), "future revision") {
			return
		}
	}
}

func mustAsk(t *testing.T, connection *grpc.ClientConn, m *member.Member, s step) outcome {
	t.Helper()
	answer, err := ask(connection, m, s)
	if err != nil {
		t.Errorf("%s: %s: %v", s.id, m.Kind.Name, err)
		return nil
	}
	return answer
}

func report(t *testing.T, s step, differing []string) {
	t.Helper()
	if len(differing) > 0 {
		t.Errorf("%s: the answers differ:\n  %s", s.id, strings.Join(differing, "\n  "))
	}
}

func quoted(verdict string) string {
	if verdict == "" {
		return "OK"
	}
	return fmt.Sprintf("%q", verdict)
}

func checkIDs(t *testing.T, script []chapter) {
	t.Helper()
	seen := map[string]bool{}
	for _, part := range script {
		for _, s := range part.steps {
			if !strings.HasPrefix(s.id, part.name+"/") {
				t.Errorf("step %s does not carry the name of its chapter %s", s.id, part.name)
			}
			if seen[s.id] {
				t.Errorf("step %s occurs twice", s.id)
			}
			seen[s.id] = true
		}
	}
}

// connect opens the one connection that a chapter uses to a member.
func connect(t *testing.T, m *member.Member) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("passthrough:///"+m.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// What is not answered is a failure here, not something to try again.
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}
