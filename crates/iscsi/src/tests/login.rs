//! Logins, exchange by exchange, to be read against RFC 7143 6.3 and 12.

use std::collections::HashMap;
use std::fmt::Write;

use super::pair::{INITIATOR, TARGET, target_config};
use super::raw::Raw;
use crate::chap::Algorithm;
use crate::pdu::LoginResponse;
use crate::target::{ChapAccount, ChapConfig, Config};
use crate::text;

/// Flags of a Login Request: T, CSG, NSG.
const fn to(current: u8, next: u8) -> u8 {
    0x80 | current << 2 | next
}

const fn stay(current: u8) -> u8 {
    current << 2
}

fn with_chap() -> Config {
    let account = |initiator_name: Option<&str>| ChapAccount {
        secret: b"the initiator's secret".to_vec(),
        initiator_name: initiator_name.map(str::to_owned),
    };
    let initiators = HashMap::from([
        ("user".to_owned(), account(None)),
        ("other".to_owned(), account(Some("iqn.other"))),
    ]);
    let target = Some(("target".to_owned(), b"the target's secret".to_vec()));
    let chap = Some(ChapConfig {
        initiators,
        target,
        discovery: false,
    });
    Config {
        chap,
        ..target_config()
    }
}

/// Runs exchanges; `{R5}` and `{R7}` stand for the right CHAP_R, `{C}` for the target's challenge.
fn run(table: &mut String, config: Config, exchanges: &[(u8, String)]) {
    let mut raw = Raw::new(config);
    let (mut identifier, mut challenge) = (0, Vec::new());
    for (flags, text) in exchanges {
        let mut sent = text.clone();
        for (mark, algorithm) in [("{R5}", Algorithm::Md5), ("{R7}", Algorithm::Sha256)] {
            let right = algorithm.response(identifier, b"the initiator's secret", &challenge);
            sent = sent.replace(mark, &text::to_hex(&right));
        }
        sent = sent
            .replace("{C}", &text::to_hex(&challenge))
            .replace(' ', "\0");
        let shown = text
            .replace(INITIATOR, "<initiator>")
            .replace(TARGET, "<target>");
        writeln!(table, "  > {flags:02x} {shown}").unwrap();
        if raw.target.is_closed() {
            writeln!(table, "  closed").unwrap();
            return;
        }
        let pdu = raw.login(*flags, sent.as_bytes());
        let response = LoginResponse(pdu.header);
        let pairs = text::parse(&pdu.data).unwrap();
        for (key, value) in &pairs {
            match *key {
                "CHAP_I" => identifier = value.parse().unwrap(),
                "CHAP_C" => challenge = text::binary(value).unwrap(),
                _ => {}
            }
        }
        let answer: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        writeln!(
            table,
            "  < {:02x} status {:02x}{:02x} tsih {} {}",
            response.flags(),
            response.status_class(),
            response.status_detail(),
            response.tsih(),
            answer.join(" ")
        )
        .unwrap();
    }
}

#[test]
fn exchanges() {
    let who = format!("InitiatorName={INITIATOR} TargetName={TARGET}");
    let who = who.as_str();
    let chap = || {
        vec![
            (stay(0), format!("{who} AuthMethod=CHAP,None")),
            (stay(0), "CHAP_A=7,5".to_owned()),
        ]
    };
    let with = |more: &[(u8, &str)]| {
        let mut all = chap();
        all.extend(
            more.iter()
                .map(|(flags, text)| (*flags, (*text).to_owned())),
        );
        all
    };
    let one = |flags, text: &str| vec![(flags, text.replace("{who}", who))];
    let plain: Vec<(&str, Vec<(u8, String)>)> = vec![
        ("straight to full feature", one(to(1, 3), "{who}")),
        ("libiscsi", one(to(1, 3), "{who} SessionType=Normal HeaderDigest=None,CRC32C DataDigest=None InitialR2T=No ImmediateData=Yes MaxBurstLength=262144 FirstBurstLength=262144 MaxRecvDataSegmentLength=262144 DataPDUInOrder=Yes DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No MaxConnections=1 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 DataSequenceInOrder=Yes")),
        ("open-iscsi, two stages", vec![
            (to(0, 1), format!("{who} InitiatorAlias=host SessionType=Normal AuthMethod=None")),
            (to(1, 3), "HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144".into()),
        ]),
        ("discovery", one(to(1, 3), "InitiatorName=iqn.x SessionType=Discovery MaxBurstLength=8192 HeaderDigest=None MaxRecvDataSegmentLength=32768")),
        ("from security to full feature", one(to(0, 3), "{who} AuthMethod=None")),
        ("staying, then going", vec![(stay(1), who.into()), (stay(1), String::new()), (to(1, 3), String::new())]),
        ("text in two PDUs", vec![(0x44, format!("{who} MaxBurst")), (to(1, 3), "Length=4096".into())]),
        ("operational keys in the security stage", one(to(0, 1), "{who} AuthMethod=None MaxBurstLength=4096 MaxRecvDataSegmentLength=4096 X-a=b")),
        ("security keys in the operational stage", one(to(1, 3), "{who} AuthMethod=None")),
        ("CHAP wanted but not configured", one(to(0, 1), "{who} AuthMethod=CHAP")),
        ("CHAP keys out of the blue", one(stay(0), "{who} CHAP_A=5")),
        ("no initiator name", one(to(1, 3), "TargetName=iqn.x")),
        ("no target name", one(to(1, 3), "InitiatorName=iqn.x")),
        ("empty initiator name", one(to(1, 3), "InitiatorName= TargetName=iqn.x")),
        ("unknown target", one(to(1, 3), "InitiatorName=iqn.x TargetName=iqn.y")),
        ("unknown session type", one(to(1, 3), "{who} SessionType=Other")),
        ("names given twice", one(to(1, 3), "{who} InitiatorName=iqn.z")),
        ("names again later", vec![(stay(1), who.into()), (to(1, 3), "TargetName=iqn.x".into())]),
        ("a key twice, in two exchanges", vec![(stay(1), format!("{who} MaxBurstLength=4096")), (to(1, 3), "MaxBurstLength=8192".into())]),
        ("reserved stage", one(to(2, 3), "{who}")),
        ("full feature as current stage", one(to(3, 3), "{who}")),
        ("back to security", vec![(stay(1), who.into()), (to(0, 1), String::new())]),
        ("transit to the same stage", one(to(1, 1), "{who}")),
        ("transit with text that continues", one(0x40 | to(1, 3), "{who}")),
        ("malformed text", one(to(1, 3), "{who} nonsense")),
        ("declaration out of range", one(to(1, 3), "{who} MaxRecvDataSegmentLength=1")),
    ];
    let chapped: Vec<(&str, Vec<(u8, String)>)> = vec![
        (
            "no authentication offered",
            one(to(0, 1), "{who} AuthMethod=None"),
        ),
        ("security stage skipped", one(to(1, 3), "{who}")),
        ("transit without AuthMethod", one(to(0, 1), "{who}")),
        (
            "one-way, SHA-256",
            with(&[(to(0, 1), "CHAP_N=user CHAP_R={R7}"), (to(1, 3), "")]),
        ),
        (
            "one-way, MD5",
            vec![
                (stay(0), format!("{who} AuthMethod=None,CHAP")),
                (stay(0), "CHAP_A=5".into()),
                (to(0, 3), "CHAP_N=user CHAP_R={R5}".into()),
            ],
        ),
        (
            "algorithm along with the method",
            vec![
                (stay(0), format!("{who} AuthMethod=CHAP CHAP_A=5")),
                (to(0, 1), "CHAP_N=user CHAP_R={R5}".into()),
            ],
        ),
        (
            "transit too early",
            vec![
                (to(0, 1), format!("{who} AuthMethod=CHAP")),
                (to(0, 1), "CHAP_A=7".into()),
                (to(0, 1), "CHAP_N=user CHAP_R={R7}".into()),
            ],
        ),
        (
            "mutual",
            with(&[
                (
                    to(0, 1),
                    "CHAP_N=user CHAP_R={R7} CHAP_I=5 CHAP_C=0b3q2+7w==",
                ),
                (to(1, 3), ""),
            ]),
        ),
        (
            "reflected challenge",
            with(&[(to(0, 1), "CHAP_N=user CHAP_R={R7} CHAP_I=5 CHAP_C={C}")]),
        ),
        (
            "identifier without challenge",
            with(&[(to(0, 1), "CHAP_N=user CHAP_R={R7} CHAP_I=5")]),
        ),
        (
            "wrong response",
            with(&[(to(0, 1), "CHAP_N=user CHAP_R={R5}")]),
        ),
        ("no response", with(&[(to(0, 1), "CHAP_N=user")])),
        (
            "unknown user",
            with(&[(to(0, 1), "CHAP_N=nobody CHAP_R={R7}")]),
        ),
        (
            "another initiator's account",
            with(&[(to(0, 1), "CHAP_N=other CHAP_R={R7}")]),
        ),
        (
            "unknown algorithm",
            vec![chap()[0].clone(), (stay(0), "CHAP_A=6".into())],
        ),
        (
            "algorithm 56 is not 5",
            vec![chap()[0].clone(), (stay(0), "CHAP_A=56".into())],
        ),
        (
            "empty algorithm",
            vec![chap()[0].clone(), (stay(0), "CHAP_A=".into())],
        ),
        (
            "authenticating twice",
            with(&[
                (stay(0), "CHAP_N=user CHAP_R={R7}"),
                (to(0, 1), "CHAP_N=user CHAP_R={R7}"),
            ]),
        ),
        (
            "discovery needs none",
            one(to(1, 3), "InitiatorName=iqn.x SessionType=Discovery"),
        ),
    ];
    let mut table = String::new();
    for (config, logins) in [(target_config(), plain), (with_chap(), chapped)] {
        let kind = if config.chap.is_some() {
            "CHAP"
        } else {
            "no authentication"
        };
        for (name, exchanges) in logins {
            writeln!(table, "{kind}: {name}").unwrap();
            run(&mut table, config.clone(), &exchanges);
        }
    }
    insta::assert_snapshot!(table);
}
