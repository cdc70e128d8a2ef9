//! The points at which two servers are compared: what is done, how much of it at once or how often, over how many
//! connections. No I/O and no clock.

use std::fmt;
use std::str::FromStr;

use crate::shape::Shape;
use crate::workload::{KeyOrder, KeySpec, Kind, ValueSpec, WorkloadSpec};

/// Operations in flight at most: each is a stream of its own.
pub const IN_FLIGHT_MAX: usize = 100_000;
/// Connected clients of idle members at most: each is an open file of this process, and of a member.
pub const IDLE_CLIENTS_MAX: usize = 10_000;
/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 24;
/// Operations in flight at which the highest rate of a side is found: the largest of the fixed points.
const HIGHEST_IN_FLIGHT: usize = 1_000;
/// Operations in flight at most in an open loop. Later ones wait, and their waiting counts.
const OPEN_IN_FLIGHT_MAX: usize = 10_000;
/// Bytes of a value below which an event could not tell when its put was to start.
const WATCHED_VALUE_BYTES_MIN: usize = 16;

/// What is done at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Operation {
    /// Puts.
    Put,
    /// Reads of one key, linearizable.
    Get,
    /// Reads of one key that any member answers from what it has.
    GetSerializable,
    /// Linearizable reads of many keys.
    Range,
    /// Compare-and-swap.
    Txn,
    /// Puts of one key under many watchers; the operations that count are puts and delivered events.
    Watch,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::GetSerializable => "get serializable",
            Operation::Range => "range",
            Operation::Txn => "txn",
            Operation::Watch => "watch",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Operation::Put | Operation::Watch => Kind::Put,
            Operation::Get | Operation::GetSerializable => Kind::Get,
            Operation::Range => Kind::Range,
            Operation::Txn => Kind::Txn,
        }
    }
}

/// How many connections share the operations in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// So many, or as many as there are operations in flight if those are fewer.
    Shared(usize),
    /// One for each operation in flight: the hard case.
    Each,
}

impl Connections {
    /// How many there are.
    #[must_use]
    pub fn count(self, in_flight: usize) -> usize {
        match self {
            Connections::Shared(connections) => connections.min(in_flight),
            Connections::Each => in_flight,
        }
    }
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Connections, String> {
        match text {
            "each" => Ok(Connections::Each),
            number => match number.parse() {
                Ok(connections) if (1..=IN_FLIGHT_MAX).contains(&connections) => {
                    Ok(Connections::Shared(connections))
                }
                _ => Err(format!(
                    "{text:?} is neither a number of connections nor `each`"
                )),
            },
        }
    }
}

/// A closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedLoop {
    /// What.
    pub operation: Operation,
    /// How many at once.
    pub in_flight: usize,
    /// Over how many connections.
    pub connections: Connections,
}

/// An open loop of puts. Its rate is found by a closed loop right before each pair, or before each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLoop {
    /// How often.
    pub rate: Rate,
    /// Over how many connections.
    pub connections: Connections,
}

/// How often puts start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// At the highest rate of the side that is divided by: the same for both.
    HighestOfTheirs,
    /// At half of the highest rate of the side that is measured.
    HalfOfOwn,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A number of operations in flight, at whatever rate they are answered.
    Closed(ClosedLoop),
    /// Puts that start when their time has come, whether the server keeps up or not.
    Open(OpenLoop),
    /// Nothing is asked.
    Idle {
        /// Connected clients, each of which has been answered once.
        clients: usize,
    },
    /// One client that puts at the leader, each when the one before is answered, beside what disk and network alone
    /// take in the same minute.
    OneClient,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Closed(closed) => write!(
                f,
                "{}, {} in flight, {}",
                closed.operation.name(),
                closed.in_flight,
                counted(closed.connections.count(closed.in_flight), "connection")
            ),
            Point::Open(open) => {
                let rate = match open.rate {
                    Rate::HighestOfTheirs => "the opponent's highest rate",
                    Rate::HalfOfOwn => "half of its own highest rate",
                };
                let connections = open.connections.count(HIGHEST_IN_FLIGHT);
                let connections = counted(connections, "connection");
                write!(f, "put, open loop at {rate}, {connections}")
            }
            Point::OneClient => f.write_str("put, one client at the leader"),
            Point::Idle { clients: 0 } => f.write_str("idle, no client"),
            Point::Idle { clients } => {
                write!(f, "idle, {}", counted(*clients, "connected client"))
            }
        }
    }
}

fn counted(count: usize, name: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {name}{plural}")
}

/// What is measured beside closed loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// CPU of members of which nothing is asked, without clients and with connected ones.
    Idle,
    /// Puts in an open loop at the highest rate of the side that is divided by, the same for both.
    HighestRate,
    /// Puts in an open loop at half of each side's own highest rate.
    HalfRate,
    /// Puts of one client at the leader, beside what disk and network alone take.
    OneClient,
}

/// The points of these measures, each once; open loops over `connections`.
#[must_use]
pub fn measured(measures: &[Measure], connections: Connections, idle_clients: usize) -> Vec<Point> {
    let open = |rate| vec![Point::Open(OpenLoop { rate, connections })];
    let mut points: Vec<Point> = Vec::new();
    for measure in measures {
        let of_measure = match measure {
            Measure::Idle => vec![
                Point::Idle { clients: 0 },
                Point::Idle {
                    clients: idle_clients,
                },
            ],
            Measure::HighestRate => open(Rate::HighestOfTheirs),
            Measure::HalfRate => open(Rate::HalfOfOwn),
            Measure::OneClient => vec![Point::OneClient],
        };
        for point in of_measure {
            if !points.contains(&point) {
                points.push(point);
            }
        }
    }
    points
}

/// Every operation with every number in flight over every kind of connections; points that would be the same
/// (one in flight over ten connections, or over one) stand there once.
#[must_use]
pub fn grid(
    operations: &[Operation],
    in_flight: &[usize],
    connections: &[Connections],
) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for operation in operations {
        for connections in connections {
            for in_flight in in_flight {
                let point = Point::Closed(ClosedLoop {
                    operation: *operation,
                    in_flight: *in_flight,
                    connections: *connections,
                });
                if !points
                    .iter()
                    .any(|other| other.to_string() == point.to_string())
                {
                    points.push(point);
                }
            }
        }
    }
    points
}

/// What is the same at all points.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys of a range.
    pub range_keys: u64,
    /// Watchers of a watch.
    pub watchers: u64,
    /// Where the random choices begin.
    pub seed: u64,
}

impl Point {
    /// What is done there; none if nothing.
    pub(super) fn operation(&self) -> Option<Operation> {
        match self {
            Point::Closed(closed) => Some(closed.operation),
            Point::Open(_) | Point::OneClient => Some(Operation::Put),
            Point::Idle { .. } => None,
        }
    }
}

/// Load as the generator takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// What.
    pub(super) operation: Operation,
    /// When.
    pub(super) shape: Shape,
    /// Over how many connections.
    pub(super) connections: usize,
    /// To the leader alone.
    pub(super) leader_only: bool,
}

impl Load {
    /// One put after the other, at the leader.
    pub(super) fn of_one_client() -> Load {
        Load {
            operation: Operation::Put,
            shape: Shape::Closed { in_flight: 1 },
            connections: 1,
            leader_only: true,
        }
    }
}

impl ClosedLoop {
    pub(super) fn load(&self) -> Load {
        Load {
            operation: self.operation,
            shape: Shape::Closed {
                in_flight: self.in_flight,
            },
            connections: self.connections.count(self.in_flight),
            leader_only: false,
        }
    }
}

impl OpenLoop {
    /// The closed loop that finds the highest rate of a side.
    pub(super) fn highest(&self) -> ClosedLoop {
        ClosedLoop {
            operation: Operation::Put,
            in_flight: HIGHEST_IN_FLIGHT,
            connections: self.connections,
        }
    }

    /// At `rate` operations per second.
    pub(super) fn load(&self, rate: f64) -> Load {
        Load {
            operation: Operation::Put,
            shape: Shape::Open {
                rate,
                poisson: false,
                in_flight_max: OPEN_IN_FLIGHT_MAX,
            },
            connections: self.connections.count(HIGHEST_IN_FLIGHT),
            leader_only: false,
        }
    }
}

impl Operation {
    /// What the generator is to do.
    pub(super) fn workload(self, data: &Data) -> WorkloadSpec {
        let watching = self == Operation::Watch;
        let value_bytes = match watching {
            true => data.value_bytes.max(WATCHED_VALUE_BYTES_MIN),
            false => data.value_bytes,
        };
        let keys = KeySpec {
            count: if watching { 1 } else { data.keys },
            size_bytes: KEY_BYTES,
            prefix: "kontiki-load/".to_owned(),
            order: KeyOrder::Uniform,
        };
        let values = ValueSpec::equal(value_bytes);
        WorkloadSpec {
            serializable: self == Operation::GetSerializable,
            range_keys: data.range_keys,
            fill: !matches!(self, Operation::Put | Operation::Watch),
            watchers: if watching { data.watchers } else { 0 },
            watched_keys: u64::from(watching),
            ..WorkloadSpec::new(vec![(self.kind(), 1)], keys, values, data.seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::ValueEnum as _;

    use super::*;
    use crate::report::goals;
    use crate::result::{CpuCost, Latency, Optimum, Pairing, ServerCost};

    /// Goal: the grid of the goals has each point once: one in flight is one connection, shared or not.
    #[test]
    fn points_once() {
        let connections = [Connections::Shared(10), Connections::Each];
        let points = grid(&[Operation::Put], &[1, 64, 1000], &connections);
        let names: Vec<String> = points.iter().map(Point::to_string).collect();
        assert_eq!(
            names,
            [
                "put, 1 in flight, 1 connection",
                "put, 64 in flight, 10 connections",
                "put, 1000 in flight, 10 connections",
                "put, 64 in flight, 64 connections",
                "put, 1000 in flight, 1000 connections",
            ]
        );
    }

    /// Goal: the goals know the points by these names; another name would cost them their figures without a word.
    #[test]
    fn points_have_goals() {
        let connections = [Connections::Shared(10)];
        let operations = [Operation::Put, Operation::Get, Operation::GetSerializable];
        let mut points = grid(&operations, &[1, 64, 256, 1000], &connections);
        points.extend(measured(Measure::value_variants(), connections[0], 100));
        let mut runs = Vec::new();
        for point in &points {
            for side in ["kontiki", "etcd"] {
                let done: &[_] = match point.operation() {
                    Some(operation) => &[(operation.name(), 10)],
                    None => &[],
                };
                let mut run = crate::compare::judge::tests::result(done);
                run.servers.push(ServerCost {
                    pid: 1,
                    name: side.to_owned(),
                    cpu: CpuCost {
                        user: Duration::from_secs(1),
                        system: Duration::ZERO,
                    },
                    rss_bytes: 1,
                });
                run.optimum = (*point == Point::OneClient).then(|| {
                    let mut latency = Latency::new();
                    latency.record_ns(1);
                    Optimum {
                        round_trip: latency.pack(),
                        sync: latency.pack(),
                        replicated: true,
                    }
                });
                run.pairing = Some(Pairing {
                    point: point.to_string(),
                    side: side.to_owned(),
                    pair: 0,
                });
                runs.push(run);
            }
        }
        let figures = goals::figures(&runs);
        let found: Vec<&str> = figures.iter().map(|figure| figure.goal.as_str()).collect();
        assert_eq!(
            found,
            [
                "G1", "G2", "G2", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G10",
                "G10", "G10"
            ]
        );
    }

    /// Goal: each measure has its points once, however often it is named.
    #[test]
    fn measures_once() {
        let check = |measures: &[Measure], clients: usize, expected: &[&str]| {
            let points = measured(measures, Connections::Shared(10), clients);
            let names: Vec<String> = points.iter().map(Point::to_string).collect();
            assert_eq!(names, expected, "{measures:?}");
        };
        let idle = ["idle, no client", "idle, 100 connected clients"];
        check(&[Measure::Idle, Measure::Idle], 100, &idle);
        check(&[], 100, &[]);
        let rates = [Measure::HighestRate, Measure::HalfRate];
        let open = [
            "put, open loop at the opponent's highest rate, 10 connections",
            "put, open loop at half of its own highest rate, 10 connections",
        ];
        check(&rates, 100, &open);
    }

    /// Goal: numbers and `each`, nothing else.
    #[test]
    fn connections_are_read() {
        let check = |text: &str, expected: Option<Connections>| {
            assert_eq!(text.parse::<Connections>().ok(), expected, "{text}");
        };
        check("10", Some(Connections::Shared(10)));
        check("each", Some(Connections::Each));
        for wrong in ["0", "-1", "all", "", "1000000000"] {
            check(wrong, None);
        }
    }
}
