use std::cell::Cell;

use super::*;

fn watchdog() -> Watchdog {
    let mut interval = interval(Duration::from_secs(10));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Watchdog {
        interval: Some(interval),
        proof: None,
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_proven_without_a_proof_and_it_is_asked_for_once() {
    let mut watchdog = watchdog();
    let asked = Cell::new(None);
    let prove = || {
        let (proof, proven) = oneshot::channel();
        assert!(asked.replace(Some(proof)).is_none(), "asked twice");
        proven
    };
    for _ in 0..20 {
        let minute = Duration::from_secs(60);
        let proven = tokio::time::timeout(minute, watchdog.proven(prove)).await;
        assert!(proven.is_err());
    }
    asked.take().unwrap().send(false).unwrap();
    assert!(!watchdog.proven(prove).await);
    // A thread that is gone proves nothing; the next one may.
    let later = tokio::time::timeout(Duration::from_secs(5), watchdog.proven(prove));
    assert!(later.await.is_err());
    drop(asked.take());
    let start = tokio::time::Instant::now();
    watchdog
        .proven(|| {
            let (proof, proven) = oneshot::channel();
            proof.send(true).unwrap();
            proven
        })
        .await;
    assert!(start.elapsed() <= Duration::from_secs(10));
}
