use super::*;

fn ability() -> Ability {
    Ability {
        header_digest: vec![false, true],
        data_digest: vec![false, true],
        max_recv_data_segment_length_bytes: 262_144,
        max_burst_length_bytes: 1_048_576,
        first_burst_length_bytes: 262_144,
        max_outstanding_r2t: 4,
        initial_r2t: false,
        immediate_data: true,
    }
}

/// One exchange as responder; the answers as `key=value` lines, or the error.
fn answers(session_type: SessionType, offer: &str) -> String {
    let mut negotiation = Negotiation::new(ability());
    negotiation.parameters.session_type = session_type;
    let pairs: Vec<_> = offer.split(' ').filter_map(|p| p.split_once('=')).collect();
    let mut out = Vec::new();
    match negotiation.exchange(&pairs, &mut out) {
        Ok(()) => String::from_utf8(out)
            .unwrap()
            .trim_end_matches('\0')
            .replace('\0', " "),
        Err(error) => format!("! {error}"),
    }
}

/// Every key with offers around its range, and what is answered; to be read against RFC 7143 section 13.
#[test]
fn the_answer_to_every_offer() {
    let mut table = String::new();
    for offer in [
        "HeaderDigest=None",
        "HeaderDigest=CRC32C",
        "HeaderDigest=CRC32C,None",
        "HeaderDigest=None,CRC32C",
        "HeaderDigest=X-foo,CRC32C",
        "HeaderDigest=SHA",
        "DataDigest=CRC32C,None",
        "DataDigest=",
        "MaxConnections=8",
        "MaxConnections=0",
        "InitialR2T=Yes",
        "InitialR2T=No",
        "InitialR2T=no",
        "ImmediateData=Yes",
        "ImmediateData=No",
        "MaxRecvDataSegmentLength=512",
        "MaxRecvDataSegmentLength=511",
        "MaxRecvDataSegmentLength=16777215",
        "MaxRecvDataSegmentLength=16777216",
        "MaxRecvDataSegmentLength=x",
        "MaxBurstLength=16776192",
        "MaxBurstLength=512",
        "MaxBurstLength=0x10000",
        "MaxBurstLength=511",
        "FirstBurstLength=65536",
        "FirstBurstLength=524288",
        "FirstBurstLength=262144 MaxBurstLength=8192",
        "DefaultTime2Wait=0",
        "DefaultTime2Wait=30",
        "DefaultTime2Wait=3601",
        "DefaultTime2Retain=20",
        "MaxOutstandingR2T=1",
        "MaxOutstandingR2T=16",
        "MaxOutstandingR2T=65536",
        "DataPDUInOrder=No",
        "DataSequenceInOrder=No",
        "ErrorRecoveryLevel=2",
        "ErrorRecoveryLevel=3",
        "TaskReporting=ResponseFence,RFC3720",
        "TaskReporting=FastAbort",
        "iSCSIProtocolLevel=31",
        "iSCSIProtocolLevel=1",
        "IFMarker=No OFMarker=Yes",
        "IFMarkInt=2048~8192 OFMarkInt=Reject",
        "RDMAExtensions=Yes",
        "X-com.example=1",
        "maxburstlength=8192",
        "MaxBurstLength=512 MaxBurstLength=1024",
    ] {
        let normal = answers(SessionType::Normal, offer);
        let discovery = answers(SessionType::Discovery, offer);
        table += &format!("{offer}\n    normal     {normal}\n    discovery  {discovery}\n");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn both_ends_of_a_negotiation_agree() {
    let mut proposer = Negotiation::new(Ability {
        header_digest: vec![true, false],
        data_digest: vec![false],
        max_recv_data_segment_length_bytes: 65_536,
        max_burst_length_bytes: 131_072,
        first_burst_length_bytes: 1_000_000,
        max_outstanding_r2t: 2,
        initial_r2t: true,
        immediate_data: false,
    });
    let mut responder = Negotiation::new(ability());
    let (mut offer, mut answer, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    proposer.offer(&mut offer);
    responder
        .exchange(&text::parse(&offer).unwrap(), &mut answer)
        .unwrap();
    responder.declare(&mut answer);
    proposer
        .exchange(&text::parse(&answer).unwrap(), &mut nothing)
        .unwrap();
    assert!(nothing.is_empty());
    let (ours, theirs) = (&proposer.parameters, &responder.parameters);
    assert_eq!(ours.own_max_recv_data_segment_length_bytes, 65_536);
    assert_eq!(ours.peer_max_recv_data_segment_length_bytes, 262_144);
    assert_eq!(
        SessionParameters {
            own_max_recv_data_segment_length_bytes: 262_144,
            peer_max_recv_data_segment_length_bytes: 65_536,
            ..ours.clone()
        },
        *theirs
    );
    assert!(ours.header_digest && !ours.data_digest && ours.initial_r2t && !ours.immediate_data);
    assert_eq!(
        (ours.max_burst_length_bytes, ours.first_burst_length_bytes),
        (131_072, 131_072)
    );
}

#[test]
fn answers_outside_the_offer_are_refused() {
    for answer in [
        "HeaderDigest=CRC32C",
        "MaxBurstLength=200000",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "DefaultTime2Wait=1",
        "ErrorRecoveryLevel=1",
        "MaxOutstandingR2T=yes",
    ] {
        let mut proposer = Negotiation::new(Ability {
            header_digest: vec![false],
            max_burst_length_bytes: 131_072,
            initial_r2t: true,
            immediate_data: false,
            ..ability()
        });
        proposer.offer(&mut Vec::new());
        let pair = answer.split_once('=').unwrap();
        assert_eq!(
            proposer.exchange(&[pair], &mut Vec::new()),
            Err(NegotiationError::InvalidAnswer),
            "{answer}"
        );
    }
}
