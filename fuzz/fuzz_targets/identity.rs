//! Who somebody is: the user data of a connect token, the token itself as a client reads it, and ids as text. Nothing
//! panics, an id comes only from bytes that are marked as one, and is exactly the one that stands there.
#![no_main]

use bevy_player_data::{PlayerId, ProductId, PurchaseId};
use bevy_player_data_fuzz::{is_control, start};
use bevy_renet::netcode::{ConnectToken, NETCODE_USER_DATA_BYTES};
use libfuzzer_sys::fuzz_target;

const MARK: &[u8] = b"player:1";

fuzz_target!(init: start(seeds), |input: &[u8]| {
    let Some((&what, rest)) = input.split_first() else { return };
    match what % 3 {
        0 => read_user_data(rest),
        1 => read_token(rest),
        _ => read_text(rest),
    }
});

fn read_user_data(bytes: &[u8]) {
    let mut user_data = [0; NETCODE_USER_DATA_BYTES];
    let length = bytes.len().min(user_data.len());
    user_data[..length].copy_from_slice(&bytes[..length]);
    let player = identify(&user_data);
    assert_eq!(
        player.is_some(),
        user_data.starts_with(MARK),
        "an id is marked as one"
    );
    if let Some(player) = player {
        assert_eq!(player.into_bytes(), user_data[MARK.len()..][..16]);
        assert_eq!(
            player.to_user_data()[..MARK.len() + 16],
            user_data[..MARK.len() + 16]
        );
        assert_eq!(PlayerId::from_user_data(&player.to_user_data()), Some(player));
        assert_eq!(player.to_string().parse(), Ok(player));
    }
}

/// The control: a server that takes one byte of the mark for the whole.
fn identify(user_data: &[u8; NETCODE_USER_DATA_BYTES]) -> Option<PlayerId> {
    if is_control("identity") && user_data[0] == MARK[0] {
        let mut marked = *user_data;
        marked[..MARK.len()].copy_from_slice(MARK);
        return PlayerId::from_user_data(&marked);
    }
    PlayerId::from_user_data(user_data)
}

fn read_token(mut bytes: &[u8]) {
    if let Ok(token) = ConnectToken::read(&mut bytes) {
        let mut again = Vec::new();
        token.write(&mut again).expect("a `Vec` takes everything");
        // Addresses may have moved together.
        let same = ConnectToken::read(&mut &again[..]).expect("it was written");
        assert_eq!(
            (same.client_id, same.private_data),
            (token.client_id, token.private_data)
        );
    }
}

fn read_text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(player) = text.parse::<PlayerId>() {
        assert_eq!(player.to_string().parse(), Ok(player));
    }
    let is_good = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    assert_eq!(PurchaseId::new(text).is_ok(), is_good, "{text:?}");
    match ProductId::new(text) {
        Ok(product) => assert_eq!(product.as_str(), text),
        Err(problem) => assert!(problem.to_string().len() < 200, "{problem}"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    use std::time::Duration;

    let ada = PlayerId::from_name("ada");
    let address = [
        "127.0.0.1:5000".parse().expect("an address"),
        "[::1]:5001".parse().expect("an address"),
    ];
    let user_data = ada.to_user_data();
    let token = |addresses| {
        let since = Duration::from_secs(1_700_000_000);
        let token = ConnectToken::generate(since, 7, 30, 1, 10, addresses, Some(&user_data), &[3; 32]);
        let mut bytes = vec![1];
        token
            .expect("it can be made")
            .write(&mut bytes)
            .expect("a `Vec` takes everything");
        bytes
    };
    vec![
        [&[0], &user_data[..]].concat(),
        [&[0][..], b"player:2", &[7; 16]].concat(),
        [&[0][..], b"player:1"].concat(),
        token(address.to_vec()),
        token(address[..1].to_vec()),
        format!("\u{2}{ada}").into(),
        format!("\u{2}{}", ada.uuid().simple()).into(),
        format!("\u{2}{{{ada}}}").into(),
        "\u{2}coins_100".into(),
        format!("\u{2}{}", "x".repeat(256)).into(),
        "\u{2}a\u{7f}".into(),
    ]
}
