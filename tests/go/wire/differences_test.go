package wire

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// difference is one intended difference between the reference and kontiki. What is not in the table must
// agree, and a row that no answer needs is an error.
type difference struct {
	// step is the id of the request, or a pattern of path.Match.
	step string
	// field is the field's path in the outcome; or wholeAnswer, with verdicts as values.
	field string
	// etcd and kontiki are the two values; see matches for the special ones.
	etcd    string
	kontiki string
	// reason says why kontiki answers otherwise on purpose.
	reason string
}

const (
	// absent stands for a field that is not there (or zero, which is the same on the wire).
	absent = "<absent>"
	// anything at the end of a value stands for any text.
	anything = "..."
	// wholeAnswer is the field of a row for a request that one accepts and the other refuses.
	wholeAnswer = "*"
	// accepted is the verdict of an answer without an error.
	accepted = "OK"
	// measured stands for any value, where it is a size or a count of the storage's own, which differs
	// even between two runs of one server.
	measured = "<measured>"
)

func matches(pattern, value string, present bool) bool {
	switch pattern {
	case absent:
		return !present
	case measured:
		return true
	case "":
		return false
	default:
		if prefix, open := strings.CutSuffix(pattern, anything); open {
			return present && strings.HasPrefix(value, prefix)
		}
		return present && pattern == value
	}
}

// ledger compares outcomes and remembers which rows were needed.
type ledger struct {
	rows []difference
	used []bool
	// strict allows no difference at all: both servers are the reference.
	strict bool
	// compared counts requests.
	compared int
	// fields counts the fields that agreed.
	fields int
}

func newLedger(rows []difference, strict bool) *ledger {
	return &ledger{rows: rows, used: make([]bool, len(rows)), strict: strict}
}

// compare reports every field that differs without a row for it.
func (l *ledger) compare(id string, etcd, kontiki outcome) []string {
	l.compared++
	if l.allowed(id, wholeAnswer, etcd.verdictOrOK(), true, kontiki.verdictOrOK(), true) {
		return nil
	}
	all := outcome{}
	for field := range etcd {
		all[field] = ""
	}
	for field := range kontiki {
		all[field] = ""
	}
	var reports []string
	for _, field := range all.paths() {
		left, inEtcd := etcd[field]
		right, inKontiki := kontiki[field]
		if inEtcd && inKontiki && left == right {
			l.fields++
			continue
		}
		if !l.allowed(id, field, left, inEtcd, right, inKontiki) {
			reports = append(reports, fmt.Sprintf("%s: etcd %s, kontiki %s", field, shown(left, inEtcd), shown(right, inKontiki)))
		}
	}
	return reports
}

func (l *ledger) allowed(id, field, etcd string, inEtcd bool, kontiki string, inKontiki bool) bool {
	if inEtcd && inKontiki && etcd == kontiki {
		return false
	}
	for i, row := range l.rows {
		if l.strict && row.etcd != measured {
			continue
		}
		named, err := path.Match(row.step, id)
		if err != nil || !named || row.field != field {
			continue
		}
		if matches(row.etcd, etcd, inEtcd) && matches(row.kontiki, kontiki, inKontiki) {
			l.used[i] = true
			return true
		}
	}
	return false
}

// unused reports every row that was not needed.
func (l *ledger) unused() []string {
	if l.strict {
		return nil
	}
	var reports []string
	for i, row := range l.rows {
		// Two sizes may agree by chance.
		if !l.used[i] && row.etcd != measured {
			reports = append(reports, fmt.Sprintf("the difference of %s, %s (%s against %s) does not exist any more: remove the row", row.step, row.field, row.etcd, row.kontiki))
		}
	}
	return reports
}

func (o outcome) verdictOrOK() string {
	if verdict := o.verdict(); verdict != "" {
		return verdict
	}
	return accepted
}

func shown(value string, present bool) string {
	if !present {
		return absent
	}
	return strconv.Quote(value)
}
