//! Whatever bytes come, they are answered: nothing panics, hangs, or leaks a task or an I/O.

use proptest::prelude::*;
use scsi::cdb::COMMANDS;

use super::*;

/// A CDB of a real command with random fields, or random bytes.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let real = (
        any::<prop::sample::Index>(),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
    )
        .prop_map(|(index, noise, mask)| {
            let command = &COMMANDS[index.index(COMMANDS.len())];
            // Bits that the command evaluates, thinned out so that numbers are small now and then.
            let mut cdb: Vec<u8> = command
                .usage
                .iter()
                .zip(noise.iter().zip(mask))
                .map(|(usage, (noise, mask))| usage & noise & mask)
                .collect();
            cdb[0] = command.operation_code;
            if let Some(action) = command.service_action {
                cdb[1] = cdb[1] & !0x1f | action;
            }
            cdb.resize(16, 0);
            cdb
        });
    prop_oneof![
        8 => real,
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..64),
        (1..9usize).prop_map(|blocks| vec![0x5a; blocks * 512]),
        Just(vec![0; 24]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_command_is_answered(commands in prop::collection::vec((cdb(), data(), 0..3u16, any::<bool>()), 1..60)) {
        run(async {
            let world = World::new().await;
            world.add_volume("v1", BlockSize::B4096).await;
            let initiators = [world.fresh("a"), world.fresh("b")];
            for (cdb, data, lun, first) in commands {
                let by = &initiators[usize::from(first)];
                match by.raw(lun, &cdb, &data).await {
                    Outcome::Response(response) => {
                        let check = response.status == Status::CheckCondition;
                        assert_eq!(check, !response.sense.is_empty(), "{cdb:02x?}");
                        if check {
                            Sense::parse(&response.sense).unwrap();
                        }
                    }
                    // PREEMPT AND ABORT of the other's tasks; they run one after the other, so there are none.
                    Outcome::Aborted => panic!("{cdb:02x?}"),
                }
                for initiator in &initiators {
                    assert_eq!(initiator.session.task_count(), 0);
                }
                for unit in world.target.logical_units() {
                    assert_eq!(unit.in_flight(), 0);
                }
            }
            for initiator in &initiators {
                initiator.session.detach(DetachReason::Logout).await;
            }
        });
    }
}
