//! What another agent is given: nothing, unless it shows a pass of the server for the list that it asks for, made out to the
//! certificate that it shows.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::assembly::Assembly;
use super::rate::Rate;
use super::shelf::Shelf;
use crate::oci::ContentDigest;
use crate::rollouts::parts::Place;
use crate::swarm::pass::{Bearer, is_valid};

/// Pieces that are given at once.
const UPLOADS: usize = 3;

/// Why another agent is given nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no pass, or it is for somebody or something else")]
    NoPass,
    #[error("this is not here")]
    Lacks,
    #[error("others are served")]
    Busy,
    #[error("it cannot be read")]
    Disk(#[from] io::Error),
}

pub struct Giving {
    place: Place,
    shelf: Arc<Shelf>,
    /// Public keys by which passes are verified, as the server said last.
    keys: Mutex<Vec<String>>,
    uploads: AtomicUsize,
    /// The rate in bytes a second at which all others together are given pieces.
    pub rate: Rate,
}

/// A piece that is given. The next one who asks may wait for its end.
pub struct Given {
    pub data: Vec<u8>,
    giving: Arc<Giving>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.giving.uploads.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Giving {
    pub fn new(place: Place, shelf: Arc<Shelf>, rate: Rate) -> Self {
        let (keys, uploads) = (Mutex::default(), AtomicUsize::new(0));
        Self { place, shelf, keys, uploads, rate }
    }

    /// The server says by which keys passes are signed.
    pub fn believe(&self, keys: &[String]) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    fn find(&self, list: &str, pass: &str, fingerprint: &str) -> Result<Arc<Assembly>, Refusal> {
        let list: ContentDigest = list.parse().map_err(|_| Refusal::NoPass)?;
        let bearer = Bearer { place: &self.place, list: &list, fingerprint };
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !is_valid(pass, &bearer, &keys) {
            return Err(Refusal::NoPass);
        }
        self.shelf.find(&list).ok_or(Refusal::Lacks)
    }

    /// The pieces of a list that are here, one bit for each.
    pub fn has(&self, list: &str, pass: &str, fingerprint: &str) -> Result<Vec<u8>, Refusal> {
        Ok(self.find(list, pass, fingerprint)?.have().to_bytes())
    }

    /// One piece of a list, read and verified.
    pub fn piece(
        self: &Arc<Self>,
        list: &str,
        piece: usize,
        pass: &str,
        fingerprint: &str,
    ) -> Result<Given, Refusal> {
        let assembly = self.find(list, pass, fingerprint)?;
        let turn = self.uploads.fetch_update(Ordering::AcqRel, Ordering::Acquire, |it| {
            (it < UPLOADS).then_some(it + 1)
        });
        turn.map_err(|_| Refusal::Busy)?;
        // It gives the turn back, whatever follows.
        let mut given = Given { data: Vec::new(), giving: self.clone() };
        given.data = assembly.read(piece)?.ok_or(Refusal::Lacks)?;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::pass::PassKeys;
    use crate::swarm::pieces::{BlobPieces, Piece, PieceList};

    #[test]
    fn who_has_no_pass_of_the_server_for_this_list_and_this_certificate_gets_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::open(directory.path().join("content"), 100));
        let data = b"a piece";
        let digest = ContentDigest::of(data);
        let blob = BlobPieces {
            digest: digest.clone(),
            size: data.len() as u64,
            pieces: vec![Piece::of(data)],
        };
        let list = Arc::new(PieceList::new(vec![blob]).unwrap());
        let place = directory.path().join("incoming");
        let assembly = Arc::new(Assembly::open(&digest, list, &place, &|| true).unwrap());
        assembly.put(0, data).unwrap();
        shelf.comes(Some(&assembly));

        let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
        let keys = PassKeys::renewed(None, [7; 32], 1).unwrap();
        let fingerprint = "ab".repeat(32);
        let bearer = Bearer { place: &place, list: &assembly.digest, fingerprint: &fingerprint };
        let pass = keys.sign(&bearer, 1).unwrap();
        let giving = Arc::new(Giving::new(place.clone(), shelf.clone(), Rate::new(None)));
        let list = assembly.digest.to_string();
        let refused = |giving: &Arc<Giving>, pass: &str, fingerprint: &str| {
            matches!(giving.has(&list, pass, fingerprint), Err(Refusal::NoPass))
                && matches!(giving.piece(&list, 0, pass, fingerprint), Err(Refusal::NoPass))
        };
        assert!(refused(&giving, &pass, &fingerprint), "no server has named its keys");
        giving.believe(&keys.public());
        assert!(refused(&giving, "", &fingerprint) && refused(&giving, &pass, &"cd".repeat(32)));
        let other = Place { service: "other".to_owned(), ..place };
        let elsewhere = Arc::new(Giving::new(other, shelf, Rate::new(None)));
        elsewhere.believe(&keys.public());
        assert!(refused(&elsewhere, &pass, &fingerprint), "of another service");

        assert_eq!(giving.has(&list, &pass, &fingerprint).unwrap(), [1]);
        let given: Vec<_> =
            (0..UPLOADS).map(|_| giving.piece(&list, 0, &pass, &fingerprint).unwrap()).collect();
        assert!(given.iter().all(|it| it.data == data));
        let busy = giving.piece(&list, 0, &pass, &fingerprint);
        assert!(matches!(busy, Err(Refusal::Busy)));
        drop(given);
        assert!(matches!(giving.piece(&list, 1, &pass, &fingerprint), Err(Refusal::Lacks)));
        assert!(giving.piece(&list, 0, &pass, &fingerprint).is_ok());
    }
}
