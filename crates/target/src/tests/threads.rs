//! The gate under threads: a victim writes in a loop on its own thread while another nexus preempts it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use scsi::cdb::PersistentReserveOutAction as Action;

use super::reserving::{pr, register};
use super::*;

const ROUNDS: usize = 100;

#[test]
fn after_the_answer_to_preempt_nothing_of_the_victim_lands() {
    let world = run(World::new());
    world.device.dawdle.store(true, SeqCst);
    let a = run(world.initiator("a"));
    run(register(&a, 1));
    run(pr(&a, Action::Reserve, 5, 1, 0));
    for round in 0..ROUNDS {
        let b = run(world.initiator("b"));
        let stop = AtomicBool::new(false);
        let written = AtomicBool::new(false);
        run(register(&b, 2));
        let session = b.session.clone();
        drop(b);
        let (landed_at_answer, victim_landed) = thread::scope(|scope| {
            let victim = scope.spawn(|| {
                let cdb = write(round as u64, 1).encode();
                run(async {
                    let mut tag = 0;
                    while !stop.load(SeqCst) {
                        tag += 1;
                        let request = Request {
                            tag,
                            lun: lun_field(0),
                            cdb: &cdb,
                            attribute: TaskAttribute::Simple,
                            data_out_bytes: 512,
                            data_in_bytes: 0,
                        };
                        if let Ok(task) = session.submit(request) {
                            let data = BytesMut::from(&[0xbb; 512][..]);
                            task.execute(data).await;
                            written.store(true, SeqCst);
                        }
                    }
                });
            });
            while !written.load(SeqCst) {
                thread::yield_now();
            }
            let action = if round % 2 == 0 {
                Action::Preempt
            } else {
                Action::PreemptAndAbort
            };
            run(pr(&a, action, 5, 1, 2));
            let at_answer = world.device.blocks(0xbb);
            // Let the victim try on.
            for _ in 0..50 {
                thread::yield_now();
            }
            stop.store(true, SeqCst);
            victim.join().unwrap();
            (at_answer, world.device.blocks(0xbb))
        });
        assert_eq!(landed_at_answer, victim_landed, "round {round}");
        run(session.detach(DetachReason::NexusLoss));
    }
    assert!(
        world.device.blocks(0xbb) >= ROUNDS,
        "the victim has been writing"
    );
}

#[test]
fn compare_and_write_on_several_threads_loses_no_count() {
    use scsi::cdb::CompareAndWrite;
    const THREADS: usize = 3;
    const INCREMENTS: u64 = 40;
    let world = run(World::new());
    let initiators: Vec<Initiator> = (0..THREADS)
        .map(|index| run(world.initiator(&format!("i{index}"))))
        .collect();
    let sessions: Vec<_> = initiators
        .into_iter()
        .map(|initiator| initiator.session)
        .collect();
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(move || {
                let by = Initiator {
                    session: session.clone(),
                    next_tag: Cell::new(1),
                };
                run(async {
                    for _ in 0..INCREMENTS {
                        loop {
                            let old = by.good(read(3, 1), &[]).await;
                            let mut new = old.clone();
                            let count = u64::from_le_bytes(old[..8].try_into().unwrap());
                            new[..8].copy_from_slice(&(count + 1).to_le_bytes());
                            let swap = Cdb::CompareAndWrite(CompareAndWrite {
                                lba: 3,
                                length_blocks: 1,
                                dpo: false,
                                fua: false,
                            });
                            let response = by.send(swap, &[old, new].concat()).await;
                            if response.status == Status::Good {
                                break;
                            }
                        }
                    }
                });
            });
        }
    });
    let by = Initiator {
        session: sessions[0].clone(),
        next_tag: Cell::new(10_000),
    };
    let block = run(by.good(read(3, 1), &[]));
    let count = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert_eq!(count, THREADS as u64 * INCREMENTS);
}
