//! Every read and write arrives intact under all negotiated combinations.

use bytes::Bytes;
use proptest::prelude::*;

use super::pair::{Pair, initiator_config, read_command, target_config, write_command};
use crate::initiator::{DigestChoice, Event, Expected, Residual};
use crate::{initiator, target};

fn digest() -> impl Strategy<Value = DigestChoice> {
    prop_oneof![
        Just(DigestChoice::None),
        Just(DigestChoice::Crc32c),
        Just(DigestChoice::PreferCrc32c),
        Just(DigestChoice::PreferNone),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![512..2000u32, 512..20_000u32, Just(65_536)]
}

prop_compose! {
    fn initiator_settings()(
        header_digest in digest(),
        data_digest in digest(),
        segment in length(),
        max_burst in length(),
        first_burst in length(),
        max_outstanding_r2t in 1..5u16,
        initial_r2t: bool,
        immediate_data: bool,
    ) -> initiator::Config {
        initiator::Config {
            header_digest,
            data_digest,
            max_recv_data_segment_length_bytes: segment,
            max_burst_length_bytes: max_burst,
            first_burst_length_bytes: first_burst,
            max_outstanding_r2t,
            initial_r2t,
            immediate_data,
            ..initiator_config()
        }
    }
}

prop_compose! {
    fn target_settings()(
        segment in length(),
        max_burst in length(),
        first_burst in length(),
        max_outstanding_r2t in 1..5u16,
        initial_r2t: bool,
        immediate_data: bool,
        command_window in 1..20u32,
        data_budget_bytes in prop_oneof![Just(0usize), 0..40_000usize, Just(1 << 20)],
    ) -> target::Config {
        target::Config {
            max_recv_data_segment_length_bytes: segment,
            max_burst_length_bytes: max_burst,
            first_burst_length_bytes: first_burst,
            max_outstanding_r2t,
            initial_r2t,
            immediate_data,
            command_window,
            data_budget_bytes,
            ..target_config()
        }
    }
}

/// The distance between the regions that commands run at the same time use, in bytes.
const REGION: u64 = 1 << 15;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn data_arrives_intact(
        initiator in initiator_settings(),
        target in target_settings(),
        seed: u64,
        lengths in proptest::collection::vec(prop_oneof![1..600usize, 1..32_768usize], 1..16),
    ) {
        let mut pair = Pair::logged_in(target, initiator, seed);
        let parameters = pair.target.parameters().unwrap().clone();
        let theirs = pair.initiator.parameters().unwrap();
        prop_assert_eq!(
            (parameters.max_burst_length_bytes, parameters.first_burst_length_bytes),
            (theirs.max_burst_length_bytes, theirs.first_burst_length_bytes)
        );
        let mut written = Vec::new();
        for (i, length) in lengths.iter().enumerate() {
            let data: Vec<u8> = (0..*length).map(|_| pair.random.below(256) as u8).collect();
            let data = Bytes::from(data);
            pair.initiator.submit(write_command(i as u64 * REGION, data.clone()));
            written.push(data);
        }
        pair.run();
        prop_assert_eq!(pair.events.len(), lengths.len());
        for event in pair.events.drain(..) {
            let Event::Completed(completion) = event else { panic!("{event:?}") };
            prop_assert_eq!((completion.status, completion.residual), (0, Residual::None));
        }
        let mut reads = Vec::new();
        for (i, data) in written.iter().enumerate() {
            let start = i * REGION as usize;
            prop_assert!(pair.disk[start..start + data.len()] == data[..], "write {} arrived", i);
            reads.push(pair.initiator.submit(read_command(start as u64, data.len() as u32)));
        }
        pair.run();
        prop_assert_eq!(pair.events.len(), lengths.len());
        for event in pair.events.drain(..) {
            let Event::Completed(completion) = event else { panic!("{event:?}") };
            let index = reads.iter().position(|itt| *itt == completion.itt).unwrap();
            prop_assert_eq!((completion.status, completion.residual), (0, Residual::None));
            prop_assert!(completion.data_in == written[index], "read {} arrived", index);
        }
        prop_assert!(pair.target_events.iter().all(|e| matches!(e, target::Event::SessionEstablished(_))));
        prop_assert_eq!(pair.target.buffered_bytes(), 0, "the budget is given back");
    }

    /// RFC 7143 11.4.5: whatever is expected and whatever the command transfers.
    #[test]
    fn residuals(
        initiator in initiator_settings(),
        seed: u64,
        length in 0..5000u32,
        expected in 0..5000u32,
        write: bool,
    ) {
        let mut pair = Pair::logged_in(target_config(), initiator, seed);
        let data: Vec<u8> = (0..expected).map(|n| n as u8 | 1).collect();
        let mut command = match write {
            true => write_command(0, data.clone().into()),
            false => read_command(0, expected),
        };
        command.cdb = super::pair::cdb(command.cdb[0], 0, length);
        command.expected_override = Some(Expected { read: !write, write, length_bytes: expected });
        pair.disk[..5000].fill(if write { 0 } else { 0x5a });
        let completion = pair.execute(command);
        let residual = match (length, expected) {
            (l, e) if l > e => Residual::Overflow(l - e),
            (l, e) if l < e => Residual::Underflow(e - l),
            _ => Residual::None,
        };
        prop_assert_eq!((completion.status, completion.residual), (0, residual));
        let moved = length.min(expected) as usize;
        if write {
            prop_assert_eq!(&pair.disk[..moved], &data[..moved]);
            prop_assert!(pair.disk[moved..5000].iter().all(|byte| *byte == 0));
        } else {
            prop_assert!(completion.data_in == vec![0x5a; moved]);
        }
    }

    /// A command answered before its data has come: the data is swallowed and the session goes on.
    #[test]
    fn early_answers(initiator in initiator_settings(), target in target_settings(), seed: u64, length in 1..20_000usize) {
        let mut pair = Pair::logged_in(target, initiator, seed);
        let mut command = write_command(0, vec![1; length].into());
        command.cdb = super::pair::cdb(0x01, 0, length as u32);
        for _ in 0..3 {
            let completion = pair.execute(command.clone());
            prop_assert_eq!(completion.status, 0x18);
            prop_assert_eq!(completion.residual, Residual::Underflow(length as u32));
        }
        let completion = pair.execute(write_command(5, vec![2; length].into()));
        prop_assert_eq!(completion.status, 0);
        prop_assert!(pair.disk[5..5 + length].iter().all(|byte| *byte == 2));
    }
}
