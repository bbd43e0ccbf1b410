//! Mailboxes: who may write what.

use std::collections::BTreeMap;
use std::pin::pin;

use scsi::cdb::{COMMANDS, CommandId, CompareAndWrite, TransferSize, WriteAtomic16, WriteSame};
use scsi::sam::TaskManagementFunction;

use super::copying::{copy, list};
use super::domains::name;
use super::*;

/// Blocks 16 to 31 are `a`'s, 32 to 47 `b`'s.
async fn mailbox(world: &World) {
    let windows = BTreeMap::from([
        (name("a"), 16 * 512..32 * 512),
        (name("b"), 32 * 512..48 * 512),
    ]);
    set_windows(world, windows).await;
}

async fn set_windows(world: &World, windows: BTreeMap<String, std::ops::Range<u64>>) {
    let policy = UnitPolicy {
        windows: Some(windows),
        ..UnitPolicy::default()
    };
    let volume = world.volume_uuid("v0");
    world.target.set_policy(volume, policy).await.unwrap();
}

/// Every way to write `blocks` blocks at `lba`.
fn writes(lba: u64, blocks: u32) -> Vec<(Cdb, Vec<u8>)> {
    let data = vec![0xaa; 512 * blocks as usize];
    let sizes = [
        TransferSize::Six,
        TransferSize::Ten,
        TransferSize::Twelve,
        TransferSize::Sixteen,
    ];
    let mut all: Vec<(Cdb, Vec<u8>)> = sizes
        .into_iter()
        .map(|size| {
            let transfer = scsi::cdb::Transfer {
                size,
                ..transfer(lba, blocks)
            };
            (Cdb::Write(transfer), data.clone())
        })
        .collect();
    let same = WriteSame {
        size: TransferSize::Sixteen,
        lba,
        length_blocks: blocks,
        unmap: false,
        anchor: false,
        no_data_out_buffer: false,
    };
    all.push((Cdb::WriteSame(same), vec![0xaa; 512]));
    all.push((Cdb::OrWrite16(transfer(lba, blocks)), data.clone()));
    let atomic = WriteAtomic16 {
        lba,
        length_blocks: blocks as u16,
        boundary_blocks: 0,
        dpo: false,
        fua: false,
    };
    all.push((Cdb::WriteAtomic16(atomic), data.clone()));
    let swap = CompareAndWrite {
        lba,
        length_blocks: blocks as u8,
        dpo: false,
        fua: false,
    };
    all.push((Cdb::CompareAndWrite(swap), [data.clone(), data].concat()));
    all
}

#[test]
fn a_member_writes_its_window_and_nothing_else() {
    run(async {
        let world = World::new().await;
        mailbox(&world).await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        for (lba, blocks) in [(16, 1), (16, 16), (31, 1)] {
            for (cdb, data) in writes(lba, blocks) {
                a.good(cdb, &data).await;
            }
        }
        let operator = world.initiator("operator").await;
        for (lba, blocks) in [
            (0, 1),
            (15, 1),
            (15, 2),
            (16, 17),
            (31, 2),
            (32, 1),
            (0, 64),
        ] {
            for (cdb, data) in writes(lba, blocks) {
                assert_eq!(
                    a.fails(cdb, &data).await,
                    AdditionalSense::WRITE_PROTECTED,
                    "{cdb:?}"
                );
            }
        }
        for (cdb, data) in writes(16, 1) {
            for who in [&b, &operator] {
                assert_eq!(
                    who.fails(cdb, &data).await,
                    AdditionalSense::WRITE_PROTECTED
                );
            }
        }
        // Everyone reads everything.
        for who in [&a, &b, &operator] {
            assert_eq!(who.good(read(16, 1), &[]).await, [0xaa; 512]);
            assert_eq!(who.good(read(32, 1), &[]).await, [0; 512]);
        }
    });
}

/// Every command there is, with whatever in its fields: of what it does to a mailbox outside of the window nothing is left.
#[test]
fn no_command_gets_past_the_window() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        a.good(write(0, 64), &[0x11; 64 * 512]).await;
        mailbox(&world).await;
        a.settle().await;
        let writing = COMMANDS.iter().filter(|command| {
            let mut cdb = [0; 16];
            cdb[0] = command.operation_code;
            cdb[1] = command.service_action.unwrap_or(0);
            let row = reservation::access::row_of(&cdb).unwrap();
            row.writes_medium()
                || crate::commands::needs_write_grant(command.id)
                || row.manages_reservations() && row.opcode() != 0x5e
                || command.id == CommandId::ExtendedCopyLid1
        });
        let mut seen = 0;
        for command in writing {
            seen += 1;
            // LBA 0, some length, a parameter list of zeroes.
            let mut cdb = [0u8; 16];
            cdb[0] = command.operation_code;
            cdb[1] = command.service_action.unwrap_or(0);
            for at in [4, 8, 13] {
                let mut cdb = cdb;
                cdb[at] = 1;
                for data in [vec![], vec![0; 24], vec![0x22; 512], vec![0x22; 1024]] {
                    let outcome = a.raw(0, &cdb, &data).await;
                    let Outcome::Response(response) = outcome else {
                        panic!("aborted");
                    };
                    // Only RELEASE-like nothings and empty transfers are GOOD.
                    if response.status == Status::Good {
                        assert!(
                            matches!(command.id, CommandId::ExtendedCopyLid1),
                            "{} was let in",
                            command.name
                        );
                    }
                }
            }
        }
        assert!(seen > 30, "{seen}");
        let list = list(&world, &[0], &[(0, 16, 0, 0, 1)]);
        assert_ne!(a.send(copy(&list), &list).await.status, Status::Good);
        assert_eq!(a.good(read(0, 64), &[]).await, vec![0x11; 64 * 512]);
        assert!(
            world
                .target
                .logical_unit(0)
                .unwrap()
                .reservations()
                .unwrap()
                .scsi2
                .is_none()
        );
    });
}

#[test]
fn a_reset_of_a_mailbox_reaches_nobody_else() {
    run(async {
        let world = World::new().await;
        mailbox(&world).await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        for function in [
            TaskManagementFunction::LogicalUnitReset,
            TaskManagementFunction::TargetWarmReset,
        ] {
            let response = a.session.task_management(function, lun_field(0), 0).await;
            assert_eq!(
                response,
                scsi::sam::TaskManagementResponse::FunctionComplete
            );
        }
        assert_eq!(b.settle().await, []);
    });
}

/// A slot that is given to somebody else: what its owner before has in flight ends first.
#[test]
fn a_window_changes_hands_when_nothing_is_in_flight() {
    run(async {
        let world = World::new().await;
        mailbox(&world).await;
        let (a, c) = (world.initiator("a").await, world.initiator("c").await);
        world.device.writes.close();
        let mut late = pin!(a.send(write(16, 1), &[0xaa; 512]));
        assert!(stuck(late.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let windows = BTreeMap::from([(name("c"), 16 * 512..32 * 512)]);
        let mut change = pin!(set_windows(&world, windows));
        assert!(stuck(change.as_mut()).await);
        for who in [&a, &c] {
            assert_eq!(
                who.fails(write(16, 1), &[0xcc; 512]).await,
                AdditionalSense::WRITE_PROTECTED
            );
        }
        world.device.writes.open();
        futures_lite::future::zip(change, late).await;
        c.good(write(16, 1), &[0xcc; 512]).await;
        assert_eq!(
            a.fails(write(16, 1), &[0xaa; 512]).await,
            AdditionalSense::WRITE_PROTECTED
        );
    });
}
