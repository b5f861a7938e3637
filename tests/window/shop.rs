//! What the shop says about purchases, in the UI's tree.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use bevy::{prelude::*, ui::InteractionDisabled, ui_widgets::Button};
use bevy_player_data::prelude::*;

use crate::{
    support::Pair,
    window::{link::Account, shop::ToggleShop},
};

/// The id of the only purchase that the storefront below sells.
const PURCHASE: &str = "test-1";

/// A storefront that sells one thing, once, to anybody; it ends with the test's process.
fn storefront() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let body = if request[..length].starts_with(b"GET") {
                r#"[{"id":"gem","title":"A gem","price":"1 €"}]"#.to_owned()
            } else {
                format!(r#"{{"purchase_id":"{PURCHASE}"}}"#)
            };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

/// Ada in the shop, on a server that grants what `grant` grants.
fn shopping(grant: fn(In<Receipt>) -> Result) -> Pair {
    let mut pair = Pair::meet(|_, _| {});
    pair.server.add_product(Product::new("gem", grant));
    pair.client
        .insert_resource(Account::new("ada".to_owned(), vec![storefront()]));
    pair.until_in_session();
    pair.client.world_mut().trigger(ToggleShop);
    pair.until_told("A gem");
    pair.until_told("not bought yet");
    pair
}

fn submit(pair: &mut Pair) {
    let id = PurchaseId::new(PURCHASE).expect("an id");
    let product = ProductId::new("gem").expect("an id");
    let receipt = NewReceipt::new(id, crate::support::ada(), product);
    let submit = |In(receipt): In<NewReceipt>, server: PlayerDataServer| drop(server.submit_receipt(receipt));
    let submitted = pair.server.world_mut().run_system_cached_with(submit, receipt);
    submitted.expect("the plugin is there");
}

fn disabled_buttons(pair: &mut Pair) -> usize {
    let world = pair.client.world_mut();
    world
        .query_filtered::<(), (With<Button>, With<InteractionDisabled>)>()
        .iter(world)
        .count()
}

#[test]
fn a_purchase_is_pending_until_it_is_granted() {
    let mut pair = shopping(|_| Ok(()));
    assert_eq!(disabled_buttons(&mut pair), 0);
    pair.press("Buy");
    pair.until_told("paid; on its way to you");
    assert_eq!(disabled_buttons(&mut pair), 1, "nobody buys twice by accident");
    submit(&mut pair);
    pair.until_told("it is yours");
    pair.until("it can be bought again", |pair| disabled_buttons(pair) == 0);
}

#[test]
fn news_that_come_before_the_storefronts_answer_are_not_missed() {
    let mut pair = shopping(|_| Ok(()));
    submit(&mut pair);
    for _ in 0..200 {
        pair.step();
    }
    pair.press("Buy");
    pair.until_told("it is yours");
}

#[test]
fn a_purchase_that_is_refused_says_why() {
    let mut pair = shopping(|_| Err(Refuse("your bag is full").into()));
    pair.press("Buy");
    submit(&mut pair);
    pair.until_told("refused: your bag is full");
}

#[test]
fn nothing_can_be_bought_while_saves_fail_and_the_shop_says_why() {
    let mut pair = shopping(|_| Ok(()));
    pair.faults.down();
    pair.save();
    pair.until_told("Nothing can be bought until you can be saved again.");
    assert_eq!(disabled_buttons(&mut pair), 1);
    pair.faults.up();
    pair.save();
    pair.until("it can be bought again", |pair| disabled_buttons(pair) == 0);
}
