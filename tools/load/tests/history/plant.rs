//! Violations planted into a valid history: each edit breaks one promise, and says which rules may tell.

use bytes::Bytes;
use kontiki_load::history::{
    Answer, Base, Compare, Entry, Event, Kv, Operand, Operation, Outcome, Refusal, Relation,
    Request, Rule, ValueHash, WATCH_ALL, WatchEntry, WatchNotice,
};

/// One kind of violation.
pub(crate) struct Plant {
    pub(crate) name: &'static str,
    /// Whether it needs watches in the history.
    pub(crate) watch: bool,
    /// Any of these may tell.
    pub(crate) rules: &'static [Rule],
    /// Edits the history at the place it finds from this entry on; says whether it found one.
    pub(crate) edit: fn(&mut Vec<Entry>, usize) -> bool,
}

fn operation(entry: &mut Entry) -> Option<&mut Operation> {
    match entry {
        Entry::Operation(operation) => Some(operation),
        Entry::Base(_) | Entry::Watch(_) => None,
    }
}

/// Edits the first operation from `from` on that `edit` takes.
fn first(entries: &mut [Entry], from: usize, edit: impl FnMut(&mut Operation) -> bool) -> bool {
    entries[from..].iter_mut().filter_map(operation).any(edit)
}

/// A write's or read's header revision.
fn revision(operation: &Operation) -> Option<i64> {
    match operation.outcome {
        Outcome::Ok { revision, .. } => Some(revision),
        _ => None,
    }
}

/// The versions shown by a range that was asked for the current state.
fn shown(operation: &mut Operation) -> Option<(&mut Vec<Kv>, &mut i64, &mut bool, i64)> {
    let Request::Range(range) = &operation.request else {
        return None;
    };
    match &mut operation.outcome {
        Outcome::Ok {
            answer: Answer::Range(answer),
            ..
        } if range.revision == 0 && !range.count_only => Some((
            &mut answer.kvs,
            &mut answer.count,
            &mut answer.more,
            range.limit,
        )),
        _ => None,
    }
}

fn is_put(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Operation(Operation {
            request: Request::Put(_),
            outcome: Outcome::Ok { .. },
            ..
        })
    )
}

/// Two acknowledged puts, the first of which returned before the second was invoked.
fn two_puts(entries: &[Entry], from: usize) -> Option<(usize, usize)> {
    let puts: Vec<usize> = (from..entries.len())
        .filter(|at| is_put(&entries[*at]))
        .collect();
    let times = |at: usize| match &entries[at] {
        Entry::Operation(operation) => (operation.invoked, operation.returned),
        _ => unreachable!("it is a put"),
    };
    puts.iter().enumerate().find_map(|(nth, first)| {
        let later = puts[nth + 1..].iter();
        let second = later
            .copied()
            .find(|second| times(*first).1 < times(*second).0)?;
        Some((*first, second))
    })
}

/// Edits the first response with events from `from` on that `edit` takes.
fn events(
    entries: &mut [Entry],
    from: usize,
    mut edit: impl FnMut(&mut Vec<Event>, &mut i64) -> bool,
) -> bool {
    entries[from..].iter_mut().any(|entry| match entry {
        Entry::Watch(WatchEntry {
            notice:
                WatchNotice::Events {
                    revision,
                    events,
                    fragment: false,
                },
            ..
        }) => edit(events, revision),
        _ => false,
    })
}

fn next_events_of(entries: &[Entry], at: usize) -> Option<usize> {
    let Entry::Watch(first) = &entries[at] else {
        return None;
    };
    (at + 1..entries.len()).find(|later| match &entries[*later] {
        Entry::Watch(later) => (later.stream, later.watch) == (first.stream, first.watch),
        _ => false,
    })
}

fn is_events(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Watch(WatchEntry {
            notice: WatchNotice::Events { fragment: false, events, .. },
            ..
        }) if !events.is_empty()
    )
}

/// Two responses of one watch, one after the other.
fn two_responses(entries: &[Entry], from: usize) -> Option<(usize, usize)> {
    (from..entries.len()).find_map(|at| {
        let next = next_events_of(entries, at)?;
        (is_events(&entries[at]) && is_events(&entries[next])).then_some((at, next))
    })
}

fn base(entries: &[Entry]) -> i64 {
    let base = entries.iter().find_map(|entry| match entry {
        Entry::Base(Base { revision, .. }) => Some(*revision),
        _ => None,
    });
    base.expect("a history has a base")
}

/// The version of a key before one that is shown somewhere, from any answer or event.
fn older(entries: &[Entry], than: &Kv) -> Option<Kv> {
    entries.iter().find_map(|entry| match entry {
        Entry::Operation(Operation {
            outcome:
                Outcome::Ok {
                    answer: Answer::Range(answer),
                    ..
                },
            ..
        }) => answer
            .kvs
            .iter()
            .find(|kv| kv.key == than.key && kv.mod_revision < than.mod_revision)
            .cloned(),
        _ => None,
    })
}

/// Every kind.
pub(crate) const PLANTS: &[Plant] = &[
    Plant {
        name: "a read shows an older version",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            let all = entries.clone();
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                let found = kvs.iter_mut().find_map(|kv| Some((older(&all, kv)?, kv)));
                found.map(|(old, kv)| *kv = old).is_some()
            })
        },
    },
    Plant {
        name: "a read is answered from a state older than one seen before",
        watch: false,
        rules: &[Rule::RealTime],
        edit: |entries, from| {
            let first_revision = base(entries);
            // Only after something newer was answered is the base's state too old.
            let newer = entries.iter().filter_map(|entry| match entry {
                Entry::Operation(operation) => revision(operation)
                    .filter(|revision| *revision > first_revision)
                    .map(|_| operation.returned),
                _ => None,
            });
            let Some(newer_seen) = newer.min() else {
                return false;
            };
            first(entries, from, |operation| {
                let linearizable = matches!(&operation.request, Request::Range(range)
                    if !range.serializable && range.revision == 0);
                let later = operation.invoked > newer_seen;
                match &mut operation.outcome {
                    Outcome::Ok { revision, .. }
                        if linearizable && later && *revision > first_revision + 3 =>
                    {
                        *revision = first_revision;
                        true
                    }
                    _ => false,
                }
            })
        },
    },
    Plant {
        name: "two writes get one revision",
        watch: false,
        rules: &[Rule::DuplicateRevision],
        edit: |entries, from| {
            let Some((first, second)) = two_puts(entries, from) else {
                return false;
            };
            let taken = operation(&mut entries[first]).and_then(|put| revision(put));
            if let (
                Some(taken),
                Some(Operation {
                    outcome: Outcome::Ok { revision, .. },
                    ..
                }),
            ) = (taken, operation(&mut entries[second]))
            {
                *revision = taken;
            }
            true
        },
    },
    Plant {
        name: "the revisions of two writes in a row are exchanged",
        watch: false,
        rules: &[Rule::RealTime],
        edit: |entries, from| {
            let Some((first, second)) = two_puts(entries, from) else {
                return false;
            };
            let of = |entries: &mut Vec<Entry>, at: usize| {
                operation(&mut entries[at])
                    .and_then(|put| revision(put))
                    .expect("answered")
            };
            let (one, two) = (of(entries, first), of(entries, second));
            for (at, to) in [(first, two), (second, one)] {
                if let Some(Operation {
                    outcome: Outcome::Ok { revision, .. },
                    ..
                }) = operation(&mut entries[at])
                {
                    *revision = to;
                }
            }
            true
        },
    },
    Plant {
        name: "a write that nobody did",
        watch: false,
        rules: &[Rule::MissingWriter, Rule::Phantom],
        edit: |entries, from| {
            let put = (from..entries.len()).find(|at| is_put(&entries[*at]));
            put.map(|at| entries.remove(at)).is_some()
        },
    },
    Plant {
        name: "a refused write has an effect",
        watch: false,
        rules: &[Rule::MissingWriter, Rule::Phantom],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let write = matches!(
                    (&operation.request, &operation.outcome),
                    (Request::Put(_), Outcome::Ok { .. })
                );
                if write {
                    operation.outcome = Outcome::Refused(Refusal::Code(9));
                }
                write
            })
        },
    },
    Plant {
        name: "a write is invoked after it was seen",
        watch: false,
        rules: &[Rule::WrittenTooLate, Rule::MissingWriter],
        edit: |entries, from| {
            let end = entries
                .iter_mut()
                .filter_map(operation)
                .map(|each| each.returned)
                .max();
            first(entries, from, |operation| {
                let write = matches!(
                    (&operation.request, &operation.outcome),
                    (Request::Put(_), Outcome::Ok { .. })
                );
                if write {
                    operation.outcome = Outcome::Unknown;
                    operation.invoked = end.expect("operations") + 1;
                    operation.returned = operation.invoked + 1;
                }
                write
            })
        },
    },
    Plant {
        name: "a read shows another value",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                kvs.first_mut()
                    .map(|kv| kv.value = Some(ValueHash(0xbad)))
                    .is_some()
            })
        },
    },
    Plant {
        name: "a read shows another version number",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                kvs.first_mut().map(|kv| kv.version += 1).is_some()
            })
        },
    },
    Plant {
        name: "a read shows another create revision",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                kvs.first_mut().map(|kv| kv.create_revision -= 1).is_some()
            })
        },
    },
    Plant {
        name: "a read shows another lease",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                kvs.first_mut().map(|kv| kv.lease += 1).is_some()
            })
        },
    },
    Plant {
        name: "a key is missing from a range",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                let found = kvs.len() > 1;
                if found {
                    kvs.remove(0);
                }
                found
            })
        },
    },
    Plant {
        name: "a range is out of order",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                let found = kvs.len() > 1;
                kvs.reverse();
                found
            })
        },
    },
    Plant {
        name: "a deleted key is shown",
        watch: false,
        rules: &[Rule::WrongRange],
        edit: |entries, from| {
            let deleted = entries[from..].iter().find_map(|entry| match entry {
                Entry::Operation(Operation {
                    request: Request::Delete(_),
                    outcome:
                        Outcome::Ok {
                            revision,
                            answer: Answer::Delete(answer),
                        },
                    ..
                }) => Some((*revision, answer.prev_kvs.first()?.clone())),
                _ => None,
            });
            let Some((at, kv)) = deleted else {
                return false;
            };
            first(entries, 0, |operation| {
                let newer = revision(operation).is_some_and(|revision| revision >= at);
                let Request::Range(range) = &operation.request else {
                    return false;
                };
                let fits = newer && range.interval.contains(&kv.key);
                let Some((kvs, count, ..)) = shown(operation) else {
                    return false;
                };
                let found = fits && kvs.is_empty() && *count == 0;
                if found {
                    kvs.push(kv.clone());
                    *count += 1;
                }
                found
            })
        },
    },
    Plant {
        name: "a count is wrong",
        watch: false,
        rules: &[Rule::WrongCount],
        edit: |entries, from| {
            first(entries, from, |operation| match &mut operation.outcome {
                Outcome::Ok {
                    answer: Answer::Range(answer),
                    ..
                } => {
                    answer.count += 1;
                    true
                }
                _ => false,
            })
        },
    },
    Plant {
        name: "more is wrong",
        watch: false,
        rules: &[Rule::WrongCount],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let Some((_, _, more, _)) = shown(operation) else {
                    return false;
                };
                *more = !*more;
                true
            })
        },
    },
    Plant {
        name: "a previous version is left out",
        watch: false,
        rules: &[Rule::WrongPrevious],
        edit: |entries, from| {
            first(entries, from, |operation| match &mut operation.outcome {
                Outcome::Ok {
                    answer: Answer::Put(answer),
                    ..
                } => answer.prev.take().is_some(),
                _ => false,
            })
        },
    },
    Plant {
        name: "a previous version has another value",
        watch: false,
        rules: &[Rule::WrongPrevious],
        edit: |entries, from| {
            first(entries, from, |operation| match &mut operation.outcome {
                Outcome::Ok {
                    answer: Answer::Put(answer),
                    ..
                } => answer
                    .prev
                    .as_mut()
                    .map(|kv| kv.value = Some(ValueHash(0xbad)))
                    .is_some(),
                _ => false,
            })
        },
    },
    Plant {
        name: "a deletion counts one too many",
        watch: false,
        rules: &[Rule::WrongCount],
        edit: |entries, from| {
            first(entries, from, |operation| match &mut operation.outcome {
                Outcome::Ok {
                    answer: Answer::Delete(answer),
                    ..
                } if answer.deleted > 0 => {
                    answer.deleted += 1;
                    true
                }
                _ => false,
            })
        },
    },
    Plant {
        name: "a transaction succeeds although a compare fails",
        watch: false,
        rules: &[Rule::WrongCompare],
        edit: |entries, from| {
            first(entries, from, |operation| {
                match (&mut operation.request, &operation.outcome) {
                    (
                        Request::Txn(txn),
                        Outcome::Ok {
                            answer: Answer::Txn(answer),
                            ..
                        },
                    ) if answer.succeeded => {
                        txn.compares.push(Compare {
                            key: Bytes::from_static(b"key000"),
                            relation: Relation::Less,
                            operand: Operand::Version(0),
                        });
                        true
                    }
                    _ => false,
                }
            })
        },
    },
    Plant {
        name: "a transaction fails although all compares hold",
        watch: false,
        rules: &[Rule::WrongCompare],
        edit: |entries, from| {
            first(entries, from, |operation| {
                match (&mut operation.request, &operation.outcome) {
                    (
                        Request::Txn(txn),
                        Outcome::Ok {
                            answer: Answer::Txn(answer),
                            ..
                        },
                    ) if !answer.succeeded => {
                        txn.compares.clear();
                        true
                    }
                    _ => false,
                }
            })
        },
    },
    Plant {
        name: "a version newer than the header",
        watch: false,
        rules: &[Rule::FutureVersion],
        edit: |entries, from| {
            first(entries, from, |operation| {
                let serializable =
                    matches!(&operation.request, Request::Range(range) if range.serializable);
                let Some((kvs, ..)) = shown(operation) else {
                    return false;
                };
                let newest = kvs.iter().map(|kv| kv.mod_revision).max().unwrap_or(0);
                match &mut operation.outcome {
                    Outcome::Ok { revision, .. } if serializable && newest == *revision => {
                        *revision -= 1;
                        true
                    }
                    _ => false,
                }
            })
        },
    },
    Plant {
        name: "refused as compacted without a compaction",
        watch: false,
        rules: &[Rule::WrongCompacted],
        edit: |entries, _| {
            entries.retain(|entry| {
                !matches!(
                    entry,
                    Entry::Operation(Operation {
                        request: Request::Compact(_),
                        ..
                    })
                )
            });
            let first_revision = base(entries);
            first(entries, 0, |operation| {
                let found = matches!(&operation.request, Request::Range(range) if range.revision > first_revision);
                if found {
                    operation.outcome = Outcome::Refused(Refusal::Compacted);
                }
                found
            })
        },
    },
    Plant {
        name: "a known revision is refused as a future one",
        watch: false,
        rules: &[Rule::WrongFuture],
        edit: |entries, _| {
            let first_revision = base(entries);
            let last = entries.last_mut().and_then(operation);
            let Some(Operation {
                request: Request::Range(range),
                outcome,
                ..
            }) = last
            else {
                return false;
            };
            range.revision = first_revision + 1;
            *outcome = Outcome::Refused(Refusal::Future);
            true
        },
    },
    Plant {
        name: "watch: an event is lost",
        watch: true,
        rules: &[Rule::WatchGap],
        edit: |entries, from| {
            let Some((first, _)) = two_responses(entries, from) else {
                return false;
            };
            events(entries, first, |events, _| {
                events.remove(0);
                true
            })
        },
    },
    Plant {
        name: "watch: a response is lost",
        watch: true,
        rules: &[Rule::WatchGap],
        edit: |entries, from| {
            let two = two_responses(entries, from);
            two.map(|(first, _)| entries.remove(first)).is_some()
        },
    },
    Plant {
        name: "watch: a response comes twice",
        watch: true,
        rules: &[Rule::WatchDuplicate],
        edit: |entries, from| {
            let Some(at) = (from..entries.len()).find(|at| is_events(&entries[*at])) else {
                return false;
            };
            entries.insert(at + 1, entries[at].clone());
            true
        },
    },
    Plant {
        name: "watch: two responses are exchanged",
        watch: true,
        // A bookmark may lie between them.
        rules: &[Rule::WatchOrder, Rule::WatchBookmark],
        edit: |entries, from| {
            let two = two_responses(entries, from);
            two.map(|(first, second)| entries.swap(first, second))
                .is_some()
        },
    },
    Plant {
        name: "watch: two events are exchanged",
        watch: true,
        rules: &[Rule::WatchOrder],
        edit: |entries, from| {
            events(entries, from, |events, _| {
                let found = events.len() > 1;
                events.reverse();
                found
            })
        },
    },
    Plant {
        name: "watch: a revision is torn apart",
        watch: true,
        rules: &[Rule::WatchTorn],
        edit: |entries, from| {
            let torn = (from..entries.len()).find_map(|at| match &mut entries[at] {
                Entry::Watch(WatchEntry {
                    notice:
                        WatchNotice::Events {
                            events,
                            fragment: false,
                            ..
                        },
                    ..
                }) => {
                    let last = events.last()?.kv.mod_revision;
                    let split = events
                        .iter()
                        .position(|event| event.kv.mod_revision == last)?
                        + 1;
                    (split < events.len()).then(|| (at, events.split_off(split)))
                }
                _ => None,
            });
            let Some((at, rest)) = torn else { return false };
            let mut second = entries[at].clone();
            if let Entry::Watch(WatchEntry {
                notice: WatchNotice::Events { events, .. },
                ..
            }) = &mut second
            {
                *events = rest;
            }
            entries.insert(at + 1, second);
            true
        },
    },
    Plant {
        name: "watch: an event has another value",
        watch: true,
        rules: &[Rule::WatchContent],
        edit: |entries, from| {
            events(entries, from, |events, _| {
                let put = events.iter_mut().find(|event| event.put);
                put.map(|event| event.kv.value = Some(ValueHash(0xbad)))
                    .is_some()
            })
        },
    },
    Plant {
        name: "watch: a put comes as a deletion",
        watch: true,
        // A watch that wants no deletions calls it unasked.
        rules: &[Rule::WatchContent, Rule::WatchUnasked],
        edit: |entries, from| {
            events(entries, from, |events, _| {
                let put = events
                    .iter_mut()
                    .find(|event| event.put && event.prev.is_some());
                put.map(|event| event.put = false).is_some()
            })
        },
    },
    Plant {
        name: "watch: a previous version is another one",
        watch: true,
        rules: &[Rule::WatchContent],
        edit: |entries, from| {
            events(entries, from, |events, _| {
                let prev = events.iter_mut().find_map(|event| event.prev.as_mut());
                prev.map(|prev| prev.version += 1).is_some()
            })
        },
    },
    Plant {
        name: "watch: an event after a bookmark that covers it",
        watch: true,
        rules: &[Rule::WatchBookmark],
        edit: |entries, from| {
            let Some(at) = (from..entries.len()).find(|at| is_events(&entries[*at])) else {
                return false;
            };
            let Entry::Watch(watch) = &entries[at] else {
                return false;
            };
            let WatchNotice::Events { revision, .. } = &watch.notice else {
                return false;
            };
            let bookmark = WatchEntry {
                notice: WatchNotice::Progress {
                    revision: *revision,
                },
                watch: WATCH_ALL,
                ..watch.clone()
            };
            entries.insert(at, Entry::Watch(bookmark));
            true
        },
    },
    Plant {
        name: "watch: a header behind its event",
        watch: true,
        rules: &[Rule::WatchHeader],
        edit: |entries, from| {
            events(entries, from, |events, revision| {
                *revision = events[0].kv.mod_revision - 1;
                true
            })
        },
    },
    Plant {
        name: "watch: an event below the start revision",
        watch: true,
        rules: &[Rule::WatchStart],
        edit: |entries, _| {
            let at = (0..entries.len()).find(|at| {
                let created = matches!(
                    &entries[*at],
                    Entry::Watch(WatchEntry {
                        notice: WatchNotice::Created { .. },
                        ..
                    })
                );
                created
                    && next_events_of(entries, *at).is_some_and(|next| is_events(&entries[next]))
            });
            let Some(at) = at else { return false };
            if let Entry::Watch(WatchEntry {
                notice: WatchNotice::Created { revision, request },
                ..
            }) = &mut entries[at]
            {
                request.start_revision = *revision + 1_000;
            }
            true
        },
    },
    Plant {
        name: "watch: an event before its watch is created",
        watch: true,
        rules: &[Rule::WatchUnasked],
        edit: |entries, from| {
            let found = (from..entries.len()).find(|at| is_events(&entries[*at]));
            let Some(at) = found else { return false };
            let event = entries[at].clone();
            entries.insert(0, event);
            true
        },
    },
    Plant {
        name: "watch: an event nobody wrote",
        watch: true,
        rules: &[
            Rule::WatchContent,
            Rule::Phantom,
            Rule::WatchOrder,
            Rule::WatchUnasked,
        ],
        edit: |entries, from| {
            events(entries, from, |events, _| {
                let mut event = events[0].clone();
                event.kv.key = Bytes::from_static(b"key004x");
                events.push(event);
                true
            })
        },
    },
    Plant {
        name: "watch: cancelled as compacted without a compaction",
        watch: true,
        rules: &[Rule::WatchCancelled],
        edit: |entries, from| {
            let found = (from..entries.len()).find(|at| is_events(&entries[*at]));
            let Some(at) = found else { return false };
            let Entry::Watch(mut watch) = entries[at].clone() else {
                return false;
            };
            let WatchNotice::Events { revision, .. } = watch.notice else {
                return false;
            };
            watch.notice = WatchNotice::Cancelled {
                compact_revision: revision + 100_000,
            };
            entries.insert(at + 1, Entry::Watch(watch));
            true
        },
    },
];
