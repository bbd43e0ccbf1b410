//! Every way to take access away, against every way to write, on threads: after the answer nothing of those who lost
//! it lands. What has landed is counted by the device.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use futures_lite::future::zip;
use scsi::cdb::PersistentReserveOutAction as Action;
use scsi::cdb::{CompareAndWrite, ReserveSize, TransferSize, Unmap, WriteAtomic16, WriteSame};
use scsi::unmap::{self, UnmapBlockDescriptor};
use volume::translate::Region;

use super::copying::{copy, list};
use super::reserving::{pr, pr_out};
use super::*;

const ROUNDS: usize = 24;

/// A way to take access away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    Preempt,
    PreemptAndAbort,
    /// A reservation is made where there was none.
    Reserve,
    /// RESERVE(6).
    Scsi2,
    ReadOnly,
    NoGrant,
}

const FENCES: [Fence; 6] = [
    Fence::Preempt,
    Fence::PreemptAndAbort,
    Fence::Reserve,
    Fence::Scsi2,
    Fence::ReadOnly,
    Fence::NoGrant,
];

const VICTIMS: [&str; 2] = ["stays", "comes-and-goes"];

/// One of many ways to write the first logical unit, each victim to blocks of its own.
pub async fn write_somehow(by: &Initiator, copy_list: &[u8], kind: usize, base: u64) {
    let block = [0xbb; 512];
    let (cdb, data) = match kind % 8 {
        0 => (write(base, 1), block.to_vec()),
        1 => (write(base, 16), vec![0xbb; 16 * 512]),
        2 => {
            let command = WriteSame {
                size: TransferSize::Sixteen,
                lba: base,
                length_blocks: 64,
                unmap: false,
                anchor: false,
                no_data_out_buffer: false,
            };
            (Cdb::WriteSame(command), block.to_vec())
        }
        3 => {
            let descriptors = [UnmapBlockDescriptor {
                lba: base + 64,
                length_blocks: 8,
            }];
            let list = unmap::encode(&descriptors);
            let command = Unmap {
                anchor: false,
                parameter_list_length: list.len() as u16,
            };
            (Cdb::Unmap(command), list)
        }
        4 => (Cdb::OrWrite16(transfer(base + 8, 2)), vec![1; 2 * 512]),
        5 => {
            let command = CompareAndWrite {
                lba: base + 64,
                length_blocks: 1,
                dpo: false,
                fua: false,
            };
            (Cdb::CompareAndWrite(command), [[0; 512], block].concat())
        }
        6 => {
            let command = WriteAtomic16 {
                lba: base + 4,
                length_blocks: 2,
                boundary_blocks: 0,
                dpo: false,
                fua: false,
            };
            (Cdb::WriteAtomic16(command), vec![0xbb; 2 * 512])
        }
        _ => (copy(copy_list), copy_list.to_vec()),
    };
    // Any outcome will do.
    by.raw(0, &cdb.encode(), &data).await;
}

pub fn attach(world: &World, name: &str) -> Initiator {
    let session = loop {
        match world.target.attach(nexus(name), "192.0.2.1:40000") {
            Ok(session) => break session,
            Err(AttachError::InUse(old)) => run(old.detached()),
            Err(AttachError::Refused) => panic!("nobody is cut off"),
        }
    };
    Initiator {
        session,
        next_tag: Cell::new(1),
    }
}

/// Writes until `stop`; the session is given up and made again now and then when `goes`.
fn writer(
    world: &World,
    by: Initiator,
    copy_list: &[u8],
    base: u64,
    goes: bool,
    stop: &AtomicBool,
) {
    let name = by.session.nexus().initiator.name.clone();
    let name = name.rsplit(':').next().unwrap();
    let mut by = by;
    let mut kind = base as usize;
    while !stop.load(SeqCst) {
        run(async {
            let first = write_somehow(&by, copy_list, kind, base);
            let second = write_somehow(&by, copy_list, kind / 3, base);
            zip(first, second).await;
        });
        kind += 1;
        if goes && kind.is_multiple_of(5) {
            run(by.session.detach(DetachReason::NexusLoss));
            by = attach(world, name);
        }
    }
    run(by.session.detach(DetachReason::Logout));
}

/// Registers and unregisters until `stop`: changes of access go on beside the one that matters.
fn bystander(by: Initiator, stop: &AtomicBool) {
    run(by.settle());
    while !stop.load(SeqCst) {
        run(pr_out(&by, Action::RegisterAndIgnoreExistingKey, 0, 0, 7));
        run(pr_out(&by, Action::RegisterAndIgnoreExistingKey, 0, 0, 0));
    }
    run(by.session.detach(DetachReason::Logout));
}

#[test]
fn nothing_lands_after_the_answer_whoever_writes_and_however_it_is_taken_away() {
    let world = run(World::new());
    let source = run(world.add_volume("v1", BlockSize::B512));
    let map = world.pool.volume("v0").unwrap().map();
    let public = map
        .translate(Region::Public { plex: 0 }, 0, map.size_bytes())
        .unwrap();
    let start = public[0].device_offset_bytes;
    world.device.watch(start..start + public[0].length_bytes);
    world.device.dawdle.store(true, SeqCst);
    let a = run(world.initiator("a"));
    let copy_lists =
        [0, 1].map(|victim| list(&world, &[0, source], &[(1, 0, 0, 1024 * victim + 128, 8)]));
    for round in 0..ROUNDS {
        let fence = FENCES[round % FENCES.len()];
        run(a.settle());
        if fence != Fence::Scsi2 {
            run(pr(&a, Action::RegisterAndIgnoreExistingKey, 0, 0, 1));
        }
        if matches!(fence, Fence::Preempt | Fence::PreemptAndAbort) {
            run(pr(&a, Action::Reserve, 5, 1, 0));
        }
        let victims = VICTIMS.map(|name| {
            let victim = attach(&world, name);
            run(victim.settle());
            if fence != Fence::Scsi2 {
                run(pr(&victim, Action::RegisterAndIgnoreExistingKey, 0, 0, 2));
            }
            victim
        });
        let stop = AtomicBool::new(false);
        let before = world.device.landings();
        let at_answer = thread::scope(|scope| {
            for (index, victim) in victims.into_iter().enumerate() {
                let (world, stop) = (&world, &stop);
                let copy_list = &copy_lists[index];
                let base = 1024 * index as u64;
                // Moved by hand: it is not `Sync`, but its session is.
                let session = victim.session.clone();
                scope.spawn(move || {
                    let by = Initiator {
                        session,
                        next_tag: Cell::new(100),
                    };
                    writer(world, by, copy_list, base, index == 1, stop);
                });
            }
            if fence != Fence::Scsi2 {
                let by = attach(&world, "bystander").session;
                let stop = &stop;
                scope.spawn(move || {
                    let next_tag = Cell::new(1);
                    bystander(
                        Initiator {
                            session: by,
                            next_tag,
                        },
                        stop,
                    );
                });
            }
            while world.device.landings() < before + 3 + round as u64 % 7 {
                thread::yield_now();
            }
            run(take(&world, &a, fence));
            let at_answer = world.device.landings();
            for _ in 0..40 {
                thread::yield_now();
            }
            stop.store(true, SeqCst);
            at_answer
        });
        let at_end = world.device.landings();
        assert_eq!(at_answer, at_end, "round {round}, {fence:?}");
        run(give_back(&world, &a, fence));
    }
}

async fn take(world: &World, a: &Initiator, fence: Fence) {
    match fence {
        Fence::Preempt => pr(a, Action::Preempt, 5, 1, 2).await,
        Fence::PreemptAndAbort => pr(a, Action::PreemptAndAbort, 5, 1, 2).await,
        Fence::Reserve => pr(a, Action::Reserve, 1, 1, 0).await,
        Fence::Scsi2 => drop(a.good(Cdb::Reserve(ReserveSize::Six), &[]).await),
        Fence::ReadOnly => grant(world, Access::Ro).await,
        Fence::NoGrant => grant(world, Access::None).await,
    }
}

async fn give_back(world: &World, a: &Initiator, fence: Fence) {
    match fence {
        Fence::Scsi2 => drop(a.good(Cdb::Release(ReserveSize::Six), &[]).await),
        Fence::ReadOnly | Fence::NoGrant => grant(world, Access::Rw).await,
        _ => {}
    }
    if fence != Fence::Scsi2 {
        a.settle().await;
        pr(a, Action::Clear, 0, 1, 0).await;
    }
}

async fn grant(world: &World, access: Access) {
    for name in VICTIMS {
        let name = format!("iqn.2026-11.test:{name}");
        world.grant("v0", &name, access).await;
    }
}
