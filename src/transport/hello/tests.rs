//! The layout of greetings, and who is wanted.

use super::*;

const OWN: Own = Own {
    cluster: ClusterId(0x1122_3344_5566_7788),
    member: MemberId(7),
    incarnation: Incarnation(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
    shard: ShardId(2),
    agreed: false,
    versions: (1, 3),
};
const OTHER: Own = Own {
    member: MemberId(8),
    incarnation: Incarnation(88),
    versions: (2, 4),
    ..OWN
};

fn hello(from: Own) -> Hello {
    Hello {
        from,
        wanted: OWN.member,
        path: Path::Ordered,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Goal: the layout of both messages is frozen, byte for byte, for every version of the protocol.
#[test]
fn golden_bytes() {
    let both = concat!(
        "02000000",
        "8877665544332211",
        "0700000000000000",
        "0900000000000000",
        "100f0e0d0c0b0a090807060504030201",
        "0000000000000000000000000000000000000000"
    );
    let hello = Hello {
        from: OWN,
        wanted: MemberId(9),
        path: Path::Bulk,
    };
    let bytes = hex(&hello.to_bytes());
    assert_eq!(bytes[..16], hex(b"KTKHELLO"));
    assert_eq!(bytes[16..152], format!("01030300{both}"));
    assert_eq!(bytes[152..], *"1b6f9a04");
    let reply = |verdict| {
        let reply = Reply { from: OWN, verdict };
        hex(&reply.to_bytes(MemberId(9)))
    };
    assert_eq!(reply(Ok(1))[..16], hex(b"KTKREPLY"));
    assert_eq!(reply(Ok(1))[16..152], format!("01030100{both}"));
    let refusals = Refusal::ALL.map(|refusal| reply(Err(refusal))[16..24].to_owned());
    let expected: Vec<String> = (1..=8).map(|n| format!("010300{n:02x}")).collect();
    assert_eq!(refusals.as_slice(), expected);
    let agreed = Own {
        agreed: true,
        ..OWN
    };
    let hello = Hello {
        from: agreed,
        ..hello
    };
    assert_eq!(hex(&hello.to_bytes())[112..116], *"0100");
}

/// Goal: what is written is read, at once or in pieces, and no flipped bit goes unnoticed.
#[test]
fn there_and_back() {
    let agreed = Own {
        agreed: true,
        ..OTHER
    };
    let told = hello(agreed);
    assert_eq!(Hello::parse(&told.to_bytes()), Ok(Some(told)));
    let hello = hello(OTHER);
    let bytes = hello.to_bytes();
    for count in 0..HELLO_BYTES {
        assert_eq!(Hello::parse(&bytes[..count]), Ok(None));
    }
    assert_eq!(Hello::parse(&bytes), Ok(Some(hello)));
    for bit in 0..HELLO_BYTES * 8 {
        let mut bad = bytes;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Hello::parse(&bad).is_err(), "bit {bit}");
    }
    for verdict in [Ok(3), Err(Refusal::Stranger), Err(Refusal::TooMany)] {
        let reply = Reply { from: OWN, verdict };
        assert_eq!(Reply::parse(&reply.to_bytes(MemberId(1))), Ok(Some(reply)));
    }
}

/// Goal: a path without a meaning is damage, even when the checksum holds; a reason without one is that of a later
/// version.
#[test]
fn no_meaning() {
    let forged = |mut bytes: [u8; HELLO_BYTES], offset: usize| {
        bytes[offset] = 99;
        sealed(bytes)
    };
    let bytes = forged(hello(OTHER).to_bytes(), PATH_OR_CHOSEN_OFFSET);
    assert_eq!(Hello::parse(&bytes), Err(HelloError::Damaged));
    let reply = Reply {
        from: OWN,
        verdict: Ok(1),
    };
    let bytes = forged(reply.to_bytes(MemberId(1)), REFUSAL_OFFSET);
    let later = Reply {
        verdict: Err(Refusal::Unknown),
        ..reply
    };
    assert_eq!(Reply::parse(&bytes), Ok(Some(later)));
}

/// Goal: what speaks another protocol is recognised by its first bytes.
#[test]
fn foreign() {
    let check = |bytes: &[u8], expected: Foreign| {
        assert_eq!(Hello::parse(bytes), Err(HelloError::Foreign(expected)));
    };
    check(b"GET /raft/stream/message/1 HTTP/1.1\r\n", Foreign::Http);
    check(b"PRI * HTTP/2.0\r\n", Foreign::Http);
    check(b"\x16\x03\x01\x02\x00", Foreign::Tls);
    check(b"\0\x01", Foreign::Bytes(vec![0, 1]));
    check(b"KTKREPLY", Foreign::Bytes(b"KTKREPLY".to_vec()));
}

#[track_caller]
fn check(from: Own, wanted: MemberId, expected: Result<u8, Refusal>) {
    let admission = Admission {
        directories: Directories {
            stored: [(OTHER.member, OTHER.incarnation)].into(),
            ..Directories::default()
        },
        hear_strangers: false,
    };
    let hello = Hello {
        wanted,
        ..hello(from)
    };
    assert_eq!(hello.judge(&OWN, &admission), expected);
    // The other side of the same meeting comes to the same.
    let reply = Reply {
        from,
        verdict: hello.judge(&OWN, &admission),
    };
    if wanted == OWN.member {
        assert_eq!(reply.judge(&OWN, OTHER.member, &admission), expected);
    }
}

/// Goal: each reason not to want a connection, on both sides.
#[test]
fn refusals() {
    check(OTHER, OWN.member, Ok(3));
    check(OTHER, MemberId(9), Err(Refusal::OtherMember));
    let cluster = Own {
        cluster: ClusterId(1),
        ..OTHER
    };
    check(cluster, OWN.member, Err(Refusal::OtherCluster));
    let same = Own {
        member: OWN.member,
        ..OTHER
    };
    check(same, OWN.member, Err(Refusal::SameMember));
    let copied = Own {
        incarnation: Incarnation(89),
        ..OTHER
    };
    check(copied, OWN.member, Err(Refusal::OtherIncarnation));
    let agreed = Own {
        agreed: true,
        ..copied
    };
    check(agreed, OWN.member, Ok(3));
    let shard = Own {
        shard: ShardId(3),
        ..OTHER
    };
    check(shard, OWN.member, Err(Refusal::OtherShard));
    for (versions, expected) in [
        ((1, 1), Ok(1)),
        ((3, 9), Ok(3)),
        ((4, 9), Err(Refusal::NoCommonVersion)),
        ((0, 0), Err(Refusal::NoCommonVersion)),
        ((3, 2), Err(Refusal::NoCommonVersion)),
    ] {
        check(Own { versions, ..OTHER }, OWN.member, expected);
    }
    let reply = Reply {
        from: OTHER,
        verdict: Ok(4),
    };
    assert_eq!(
        reply.judge(&OWN, OTHER.member, &Admission::default()),
        Err(Refusal::NoCommonVersion)
    );
    assert_eq!(
        reply.judge(&OWN, MemberId(5), &Admission::default()),
        Err(Refusal::OtherMember)
    );
}
