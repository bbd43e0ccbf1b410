//! Many volumes.

use super::*;

/// Not a test of time: what is counted is what must not grow with the number of volumes.
#[test]
#[ignore = "a measurement: cargo test --release -p volume -- --ignored ten_thousand --nocapture"]
fn ten_thousand_volumes() {
    let world = world(&[80 * 1024, 80 * 1024, 80 * 1024]);
    block_on(async {
        let pool = pool(&world, 3).await;
        let start = std::time::Instant::now();
        for number in 0..10_000 {
            pool.volume_create(request(&format!("v{number}"), 1))
                .await
                .unwrap();
            if number % 1000 == 999 {
                println!("{} {:?}", number + 1, start.elapsed());
            }
        }
        let start = std::time::Instant::now();
        let again = open(&world, &[0, 1, 2]).await.unwrap();
        println!("open {} {:?}", again.volumes().len(), start.elapsed());
    });
}
