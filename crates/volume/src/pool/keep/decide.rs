//! What to do about plexes that gave trouble: pure, so that every case is a line of a table.
//!
//! Invariant: the last valid copy of a region is never given up. A plex is detached only when every region that is valid
//! in it is valid in an attached plex that gave no trouble.

/// A plex as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) struct View {
    /// It takes part.
    pub(in crate::pool) attached: bool,
    /// It gave the trouble that is being decided on.
    pub(in crate::pool) trouble: bool,
}

/// What to do with one plex that gave trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum Decision {
    /// Nothing: it takes no part already.
    Nothing,
    /// It takes no part from now on.
    Detach,
    /// It holds the only valid copy of something, but not of the regions that gave trouble: those are stale in it.
    MarkRegionsStale,
    /// It holds the only valid copy of what gave trouble: the error is the initiator's.
    LastCopy,
}

/// Decides for each plex. `troubled` says which regions gave trouble in a plex (by position), `stale` where a plex has no
/// valid data. With several plexes in trouble the one that is most complete is kept where no other is.
pub(in crate::pool) fn decide(
    plexes: &[View],
    regions: u32,
    stale: impl Fn(usize, u32) -> bool,
    troubled: impl Fn(usize, u32) -> bool,
) -> Vec<Decision> {
    let valid = |plex: usize, region: u32| plexes[plex].attached && !stale(plex, region);
    let mut kept: Vec<bool> = plexes
        .iter()
        .map(|plex| plex.attached && !plex.trouble)
        .collect();
    let covered = |kept: &[bool], plex: usize, region: u32| {
        (0..plexes.len()).any(|other| other != plex && kept[other] && valid(other, region))
    };
    // Those that must stay, most complete first: each that stays may cover for the next.
    let mut order: Vec<usize> = (0..plexes.len())
        .filter(|plex| plexes[*plex].attached && plexes[*plex].trouble)
        .collect();
    order.sort_by_key(|plex| (0..regions).filter(|region| stale(*plex, *region)).count());
    for &plex in &order {
        if (0..regions).any(|region| valid(plex, region) && !covered(&kept, plex, region)) {
            kept[plex] = true;
        }
    }
    (0..plexes.len())
        .map(|plex| {
            if !plexes[plex].attached || !plexes[plex].trouble {
                Decision::Nothing
            } else if !kept[plex] {
                Decision::Detach
            } else if (0..regions)
                .filter(|region| troubled(plex, *region) && valid(plex, *region))
                .all(|region| {
                    // Covered by one that is well there: kept, and not in trouble in this region.
                    (0..plexes.len()).any(|other| {
                        other != plex
                            && kept[other]
                            && valid(other, region)
                            && !(plexes[other].trouble && troubled(other, region))
                    })
                })
            {
                Decision::MarkRegionsStale
            } else {
                Decision::LastCopy
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plex a word: `a` attached or `d` detached, then a letter a region: `.` valid, `s` stale, `!` valid and in
    /// trouble, `x` stale and in trouble.
    fn run(plexes: &str) -> String {
        let rows: Vec<&[u8]> = plexes.split(' ').map(str::as_bytes).collect();
        let views: Vec<View> = rows
            .iter()
            .map(|row| View {
                attached: row[0] == b'a',
                trouble: row[1..].iter().any(|c| matches!(c, b'!' | b'x')),
            })
            .collect();
        let regions = rows[0].len() as u32 - 1;
        let at = |plex: usize, region: u32| rows[plex][1 + region as usize];
        decide(
            &views,
            regions,
            |plex, region| matches!(at(plex, region), b's' | b'x'),
            |plex, region| matches!(at(plex, region), b'!' | b'x'),
        )
        .into_iter()
        .map(|decision| match decision {
            Decision::Nothing => '-',
            Decision::Detach => 'D',
            Decision::MarkRegionsStale => 'M',
            Decision::LastCopy => 'L',
        })
        .collect()
    }

    #[test]
    fn the_table() {
        for (plexes, expected) in [
            // One copy: its error is the initiator's.
            ("a!..", "L"),
            // Two complete copies: the one in trouble goes.
            ("a!.. a...", "D-"),
            ("a... a.!.", "-D"),
            // The other one is detached: what it holds is not believed.
            ("a!.. d...", "L-"),
            ("d!.. a...", "--"),
            // The other one is stale where this one gave trouble, or elsewhere.
            ("a!.. as..", "L-"),
            ("a!.. a.s.", "M-"),
            ("a!!. a.s.", "L-"),
            // A third one covers what the second lacks.
            ("a!.. a.s. as..", "D--"),
            // A plex that is being filled goes whenever it gives trouble; a source of it does not.
            ("a... ax.s", "-D"),
            ("a..! asss", "L-"),
            ("a..! a..s", "L-"),
            ("a..! ass.", "M-"),
            // Both in trouble: the more complete one stays, and in what is troubled in both it is the last copy.
            ("a!.. a!..", "LD"),
            ("a!.. a!s.", "LD"),
            ("a!s. a!..", "DL"),
            // Both in trouble, each with what the other lacks: both stay, and each is stale where the other is well.
            ("a!s. a.s! a...", "DD-"),
            ("a!.s as!.", "LM"),
            ("a!.s a.s!", "ML"),
            // Detached plexes change nothing.
            ("a!.. d... a...", "D--"),
        ] {
            assert_eq!(run(plexes), expected, "{plexes}");
        }
    }

    /// Whatever is decided, each region that was valid somewhere is valid in a plex that is still attached and not marked
    /// stale there.
    #[test]
    fn no_region_loses_its_last_copy() {
        let letters = [b'.', b's', b'!', b'x'];
        let states = [b'a', b'd'];
        // Two regions, three plexes: 32 rows each.
        let mut rows: Vec<[u8; 3]> = Vec::new();
        for state in states {
            for first in letters {
                rows.extend(letters.map(|second| [state, first, second]));
            }
        }
        for a in &rows {
            for b in &rows {
                for c in &rows {
                    let text = [a, b, c]
                        .map(|row| String::from_utf8(row.to_vec()).unwrap())
                        .join(" ");
                    let decided: Vec<char> = run(&text).chars().collect();
                    for region in 0..2 {
                        let valid = |row: &[u8; 3]| {
                            row[0] == b'a' && matches!(row[1 + region], b'.' | b'!')
                        };
                        let before = [a, b, c].into_iter().any(valid);
                        let after = [a, b, c].into_iter().zip(&decided).any(|(row, decision)| {
                            let marked = *decision == 'M' && row[1 + region] == b'!';
                            valid(row) && *decision != 'D' && !marked
                        });
                        assert_eq!(before, after, "{text}: {decided:?}");
                    }
                }
            }
        }
    }
}
