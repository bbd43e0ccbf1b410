//! Volumes with several plexes.

use std::time::Duration;

use super::lab::*;
use super::*;
use crate::config::{Plex, PlexState};
use crate::sim::{self, Effect, Fault, Operations, Stop};
use crate::volume::regions::copy::Unpaced;
use crate::volume::regions::{DetachError, Regions};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_mirror_is_an_array_of_bytes_and_its_plexes_are_alike(
        alignments in prop::collection::vec(prop::sample::select(vec![1usize, 512, 4096]), 4..5),
        striped: bool,
        seed: u64,
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let plexes: &[&[usize]] = if striped { &[&[0, 1], &[2, 3]] } else { &[&[0], &[1], &[2, 3]] };
        let lab = Lab::new(seed, &alignments, plexes, 9 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            let mut model = vec![0u8; 9 << 20];
            for op in ops {
                match op {
                    Op::Write { at, blocks, byte, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let mut data = buffer(length, skew);
                        data.fill(byte);
                        volume.write(at * 512, data.freeze()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Atomic { at, blocks, byte } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_atomic(at * 512, vec![byte; length].into()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Zero { at, blocks, deallocate } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_zeroes(at * 512, blocks * 512, deallocate).await.unwrap();
                        model[from..from + length].fill(0);
                    }
                    Op::Read { at, blocks, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let (result, buf) = volume.read(at * 512, buffer(length, skew)).await;
                        result.unwrap();
                        assert_eq!(&buf[..], &model[from..from + length]);
                        let allocation = volume.allocation(at * 512, blocks * 512).await.unwrap();
                        assert!(allocation.length_bytes >= 1 && allocation.length_bytes <= blocks * 512);
                        if !allocation.allocated {
                            let known = allocation.length_bytes as usize;
                            assert!(model[from..from + known].iter().all(|byte| *byte == 0));
                        }
                    }
                }
            }
            volume.flush().await.unwrap();
            for position in 0..plexes.len() {
                assert!(lab.content(position) == model, "plex {position}");
            }
            volume.close_clean().await.unwrap();
            assert!(volume.dirty().is_empty());
            let (_, reopened) = lab.volume(false).await;
            assert!(reopened.dirty().is_empty());
            assert!(read(&reopened, 0, 9 << 20).await == model);
        });
    }
}

#[test]
fn a_write_is_on_all_plexes_and_a_dead_one_costs_a_pause() {
    let lab = Lab::new(1, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.die(1);
        fill(&volume, 4096, 4096, 2).await;
        assert!(!lab.record.lock().plexes[1].is_attached());
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0]);
        fill(&volume, 2 * MIB, 4096, 3).await;
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0, 2]);
        assert_eq!(read(&volume, 4096, 4096).await, [2; 4096]);
        volume.flush().await.unwrap();
    });
}

#[test]
fn a_plex_that_hangs_is_left_behind_after_the_limit() {
    let lab = Lab::new(2, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.hang(1);
        let before = lab.world.time();
        fill(&volume, 0, 4096, 2).await;
        let waited = lab.world.time() - before;
        assert!(
            waited >= HANG_LIMIT && waited < 2 * HANG_LIMIT,
            "{waited:?}"
        );
        let before = lab.world.time();
        fill(&volume, 4096, 4096, 3).await;
        assert_eq!(read(&volume, 0, 8192).await[..4096], [2; 4096]);
        assert!(lab.world.time() - before < Duration::from_secs(1));
        // The write that hung lands now: in a plex that nobody believes.
        lab.world.resume(1);
        assert_eq!(read(&volume, 0, 4096).await, [2; 4096]);
        assert!(volume.stale_of(plex_uuid(1)).unwrap().get(0));
    });
}
