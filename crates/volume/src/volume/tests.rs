//! The data path against a plain array of bytes, and atomic writes against power cuts.

use futures_lite::future::{block_on, zip};
use proptest::prelude::*;

use super::*;
use crate::config::Plex;
use crate::pool::{CreateVolume, DeviceSource, Pool};
use crate::sim::{SimDevice, SimWorld};
use crate::translate::Region;

mod atomic;
mod chaos;
mod crashes;
mod lab;
mod mirror;
mod model;
mod races;

const MIB: u64 = 1 << 20;
const SECTOR: usize = 512;

/// A pool with one volume `v` of 7 MiB over two disks with the given alignment, in three extents.
fn volume(
    alignment: usize,
    block_size: BlockSize,
) -> (SimWorld, Pool<SimDevice>, Arc<Volume<SimDevice>>) {
    let world = SimWorld::default();
    block_on(async {
        let pool = Pool::open(Vec::new(), Uuid::nil()).await.unwrap();
        for disk in 0..2 {
            let device = world.add(16 * MIB, alignment);
            let path = format!("/disk{disk}");
            let source = DeviceSource { path, device };
            pool.device_add(&format!("d{disk}"), source).await.unwrap();
        }
        let create = |name: &str, mib: u64, on: &[&str]| {
            pool.volume_create(CreateVolume {
                name: name.into(),
                size_bytes: mib * MIB,
                on: on.iter().map(|name| (*name).into()).collect(),
                block_size,
                ..CreateVolume::default()
            })
        };
        let volume = create("v", 3, &["d0", "d1"]).await.unwrap();
        create("between", 1, &["d0"]).await.unwrap();
        pool.volume_grow("v", 5 * MIB).await.unwrap();
        pool.volume_grow("v", 9 * MIB).await.unwrap();
        let map = volume.map();
        assert_eq!(
            map.translate(Region::Public { plex: 0 }, 0, 9 * MIB)
                .unwrap()
                .len(),
            3
        );
        (world, pool, volume)
    })
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        at: u64,
        blocks: u64,
        byte: u8,
        skew: usize,
    },
    Zero {
        at: u64,
        blocks: u64,
        deallocate: bool,
    },
    Read {
        at: u64,
        blocks: u64,
        skew: usize,
    },
    Atomic {
        at: u64,
        blocks: u64,
        byte: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    // Half of the addresses near the borders of extents.
    let at = prop_oneof![
        0u64..18_400,
        (0u64..40).prop_map(|near| 3 * 2048 - 20 + near),
        (0u64..40).prop_map(|near| 5 * 2048 - 20 + near),
    ];
    (at, 1u64..40, any::<u8>(), 0usize..3, 0u8..6).prop_map(|(at, blocks, byte, skew, kind)| {
        match kind {
            0 | 1 => Op::Write {
                at,
                blocks,
                byte,
                skew,
            },
            2 => Op::Zero {
                at,
                blocks,
                deallocate: byte % 2 == 0,
            },
            3 => Op::Atomic { at, blocks, byte },
            _ => Op::Read { at, blocks, skew },
        }
    })
}

/// A buffer whose address is off by `skew`.
fn buffer(length: usize, skew: usize) -> BytesMut {
    crate::block_device::aligned_buffer(length + skew).split_off(skew)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_volume_is_an_array_of_bytes(
        alignment in prop::sample::select(vec![1usize, 512, 4096]),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let (world, _pool, volume) = volume(alignment, BlockSize::B512);
        let mut model = vec![0u8; 9 << 20];
        block_on(async {
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
                        let buf = buffer(length, skew);
                        let address = buf.as_ptr();
                        let (result, buf) = volume.read(at * 512, buf).await;
                        result.unwrap();
                        assert_eq!(buf.as_ptr(), address, "the caller's buffer comes back");
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
            let (result, all) = volume.read(0, BytesMut::zeroed(9 << 20)).await;
            result.unwrap();
            assert!(all[..] == model[..]);
        });
        drop(world);
    }
}

#[test]
fn writers_of_one_device_block_do_not_undo_each_other() {
    let (_world, _pool, volume) = volume(4096, BlockSize::B512);
    block_on(async {
        for _ in 0..10 {
            let write =
                |sector: u64| volume.write(sector * 512, vec![sector as u8 + 1; 512].into());
            let pair = zip(zip(write(0), write(1)), zip(write(7), write(8)));
            let whole = volume.write(4096, vec![0x77; 4096].into());
            let (((a, b), (c, d)), e) = zip(pair, whole).await;
            for result in [a, b, c, d, e] {
                result.unwrap();
            }
            let (_, buf) = volume.read(0, BytesMut::zeroed(8192)).await;
            assert_eq!((buf[0], buf[512], buf[7 * 512]), (1, 2, 8));
            assert!(buf[4096 + 512..].iter().all(|byte| *byte == 0x77));
            assert!([9, 0x77].contains(&buf[4096]));
        }
    });
}

#[test]
fn a_device_error_is_told_with_its_device() {
    let (world, _pool, volume) = volume(512, BlockSize::B512);
    block_on(async {
        world.fail(1, true, true, false);
        assert!(volume.write(0, vec![1; 512].into()).await.is_ok());
        let error = volume
            .read(8 * MIB, BytesMut::zeroed(512))
            .await
            .0
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "device d1: read failed: simulated failure"
        );
        let (result, buf) = volume.read(5 * MIB - 512, BytesMut::zeroed(4 << 20)).await;
        assert!(result.is_err());
        assert_eq!(buf.len(), 4 << 20, "the whole buffer comes back");
    });
}
