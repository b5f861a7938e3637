//! The shop: what is for sale, and what became of what was bought.
//!
//! Three parties are involved. The storefront takes the money, over HTTP; the payment provider tells the game server; and
//! the server's decision arrives at the mirror, in [`OwnPurchases`], which may be earlier than the storefront's answer.

use bevy::{
    input_focus::{AutoFocus, InputFocus},
    platform::collections::HashMap,
    prelude::*,
    ui::InteractionDisabled,
    ui_widgets::{Activate, ScrollArea, observe},
};
use bevy_player_data::{client::own_player_can_purchase, prelude::*};

use super::{
    background::Background,
    dialogs::Told,
    hud,
    link::Account,
    purchase::{Purchase, owned},
    storefront::{NoSale, Storefront},
    theme::{self, Look, Modal, Theme, scrim},
};
use crate::{
    game::data::Bought,
    offers::{Offer, Order},
};

const WIDTH: f32 = 540.0;

/// Trigger this to open the shop, or to close it.
#[derive(Event)]
pub struct ToggleShop;

/// What the shop knows.
#[derive(Resource)]
struct Shop {
    storefront: Storefront,
    offers: Offers,
    /// What became of the last purchase of each product.
    purchases: HashMap<String, Purchase>,
}

/// What is for sale.
enum Offers {
    Awaited(Background<Result<Vec<Offer>, NoSale>>),
    Here(Vec<Offer>),
    Missing(NoSale),
}

/// The shop on the screen.
#[derive(Component)]
pub struct ShopPanel;

/// Why nothing can be bought now.
#[derive(Component)]
struct ReasonText;

/// What became of the last purchase of this product.
#[derive(Component)]
struct StatusText(String);

/// Buys this product.
#[derive(Component, Clone)]
struct BuyButton(String);

pub fn plugin(app: &mut App) {
    app.add_observer(toggle)
        .add_observer(buy)
        .add_observer(forget_unanswered)
        .add_systems(Startup, open_for_business)
        .add_systems(
            Update,
            (
                use_keys,
                make_way,
                go_along.run_if(resource_changed::<Account>),
                take_answers,
                show.run_if(resource_changed::<Shop>),
                show_reason,
                show_statuses,
                allow_buying.run_if(own_player_can_purchase),
                forbid_buying.run_if(not(own_player_can_purchase)),
            )
                .chain(),
        );
}

/// The player may have gone on on another server.
fn go_along(account: Res<Account>, mut shop: ResMut<Shop>) {
    shop.storefront = Storefront::new(account.server());
}

fn open_for_business(account: Res<Account>, mut commands: Commands) {
    commands.insert_resource(Shop {
        storefront: Storefront::new(account.server()),
        offers: Offers::Missing("the shop was not open yet".to_owned()),
        purchases: HashMap::default(),
    });
}

fn use_keys(keys: Res<ButtonInput<KeyCode>>, panels: Query<(), With<ShopPanel>>, mut commands: Commands) {
    let closes = keys.just_pressed(KeyCode::Escape) && !panels.is_empty();
    if closes || keys.just_pressed(KeyCode::KeyB) {
        commands.trigger(ToggleShop);
    }
}

fn toggle(
    _: On<ToggleShop>,
    told: Res<Told>,
    panels: Query<Entity, With<ShopPanel>>,
    mut shop: ResMut<Shop>,
    mut focus: ResMut<InputFocus>,
    mut commands: Commands,
) {
    if let Some(panel) = panels.iter().next() {
        commands.entity(panel).despawn();
        focus.clear();
        return;
    }
    if told.covers_the_field() {
        return;
    }
    let over_the_field = Node {
        right: px(hud::WIDTH),
        width: Val::Auto,
        ..scrim()
    };
    commands.spawn((
        ShopPanel,
        Modal,
        over_the_field,
        BackgroundColor(theme::SCRIM),
        GlobalZIndex(10),
    ));
    if !matches!(shop.offers, Offers::Here(_)) {
        let storefront = shop.storefront.clone();
        shop.offers = match Background::start(move || storefront.offers()) {
            Ok(answer) => Offers::Awaited(answer),
            Err(problem) => Offers::Missing(problem.to_string()),
        };
    }
    shop.set_changed();
}

/// A dialog is more important.
fn make_way(told: Res<Told>, panels: Query<(), With<ShopPanel>>, mut commands: Commands) {
    if told.covers_the_field() && !panels.is_empty() {
        commands.trigger(ToggleShop);
    }
}

fn take_answers(mut shop: ResMut<Shop>) {
    let known = shop.bypass_change_detection();
    let mut has_news = false;
    if let Offers::Awaited(answer) = &mut known.offers
        && let Some(answer) = answer.poll()
    {
        known.offers = answer.map_or_else(Offers::Missing, Offers::Here);
        has_news = true;
    }
    for purchase in known.purchases.values_mut() {
        if let Purchase::Asked(answer) = purchase
            && let Some(answer) = answer.poll()
        {
            *purchase = answer.map_or_else(Purchase::Failed, Purchase::Paid);
        }
    }
    if has_news {
        shop.set_changed();
    }
}

/// What was bought in an earlier session and not answered there is granted in this one, or was in that one: the player
/// sees it in what they own.
fn forget_unanswered(_: On<PlayerLoaded>, mut shop: ResMut<Shop>) {
    let known = shop.bypass_change_detection();
    known
        .purchases
        .retain(|_, purchase| !matches!(purchase, Purchase::Paid(_)));
}

fn show(shop: Res<Shop>, theme: Res<Theme>, panels: Query<Entity, With<ShopPanel>>, mut commands: Commands) {
    let Ok(panel) = panels.single() else { return };
    let (node, ground, edge) = theme::panel();
    let node = Node {
        width: px(WIDTH),
        max_width: percent(100),
        max_height: percent(100),
        ..node
    };
    commands
        .entity(panel)
        .despawn_related::<Children>()
        .with_children(|panel| {
            panel.spawn((node, ground, edge)).with_children(|panel| {
                spawn_head(panel, &theme);
                match &shop.offers {
                    Offers::Awaited(_) => {
                        panel.spawn(theme.text("Asking what is for sale …", theme::BODY, theme::MUTED));
                    }
                    Offers::Missing(problem) => {
                        let words = format!(
                            "There is nothing for sale: {problem}. Close the shop and open it again."
                        );
                        panel.spawn(theme.text(words, theme::BODY, theme::CAREFUL));
                    }
                    Offers::Here(offers) => spawn_list(panel, offers, &theme),
                }
            });
        });
}

fn spawn_head(panel: &mut ChildSpawnerCommands<'_>, theme: &Theme) {
    let head = Node {
        justify_content: JustifyContent::SpaceBetween,
        align_items: AlignItems::Center,
        flex_shrink: 0.0,
        ..default()
    };
    panel.spawn(head).with_children(|head| {
        head.spawn(theme.heading("Shop", theme::LARGE, theme::GOLD));
        head.spawn((
            theme.button("Close (Esc)", Look::Quiet),
            observe(|_: On<Activate>, mut commands: Commands| commands.trigger(ToggleShop)),
        ));
    });
    panel.spawn((theme.text("", theme::SMALL, theme::CAREFUL), ReasonText));
}

fn spawn_list(panel: &mut ChildSpawnerCommands<'_>, offers: &[Offer], theme: &Theme) {
    let list = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(8),
        overflow: Overflow::scroll_y(),
        // Room for the ring around a button.
        padding: px(2).all(),
        ..default()
    };
    panel.spawn((list, ScrollArea)).with_children(|list| {
        for (place, offer) in offers.iter().enumerate() {
            spawn_offer(list, offer, place == 0, theme);
        }
    });
}

fn spawn_offer(list: &mut ChildSpawnerCommands<'_>, offer: &Offer, is_first: bool, theme: &Theme) {
    let row = Node {
        align_items: AlignItems::Center,
        column_gap: px(12),
        padding: UiRect::axes(px(12), px(10)),
        border_radius: BorderRadius::all(px(6)),
        flex_shrink: 0.0,
        ..default()
    };
    let words = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(2),
        flex_grow: 1.0,
        flex_basis: px(0),
        ..default()
    };
    list.spawn((row, BackgroundColor(theme::RAISED)))
        .with_children(|row| {
            row.spawn((
                words,
                children![
                    theme.heading(&offer.title, theme::BODY, theme::TEXT),
                    (
                        theme.text("", theme::SMALL, theme::MUTED),
                        StatusText(offer.id.clone())
                    ),
                ],
            ));
            row.spawn((
                theme.heading(&offer.price, theme::BODY, theme::TEXT),
                TextLayout::no_wrap(),
            ));
            let mut button = row.spawn((theme.button("Buy", Look::Primary), BuyButton(offer.id.clone())));
            if is_first {
                button.insert(AutoFocus);
            }
        });
}

fn buy(pressed: On<Activate>, buttons: Query<&BuyButton>, account: Res<Account>, mut shop: ResMut<Shop>) {
    let Ok(BuyButton(product)) = buttons.get(pressed.entity) else {
        return;
    };
    let storefront = shop.storefront.clone();
    let order = Order {
        name: account.name.clone(),
        product: product.clone(),
    };
    let purchase = match Background::start(move || storefront.buy(&order)) {
        Ok(answer) => Purchase::Asked(answer),
        Err(problem) => Purchase::Failed(problem.to_string()),
    };
    shop.bypass_change_detection()
        .purchases
        .insert(product.clone(), purchase);
}

/// What was told of purchases, and what was bought.
type Purchases = (&'static OwnPurchases, Option<&'static Bought>);

fn show_statuses(
    shop: Res<Shop>,
    me: Option<Single<Purchases, With<OwnPlayer>>>,
    mut texts: Query<(&StatusText, &mut Text, &mut TextColor)>,
) {
    let (heard, bought) = me.as_deref().copied().unzip();
    for (StatusText(product), mut text, mut color) in &mut texts {
        let (words, tone) = shop.purchases.get(product).map_or_else(
            || (owned(bought.flatten(), product), theme::MUTED),
            |purchase| purchase.words(heard),
        );
        text.set_if_neq(Text(words));
        color.set_if_neq(TextColor(tone));
    }
}

type Hindrances = (
    Has<PlayerSession>,
    Has<PlayerFallback>,
    Has<SaveBlocked>,
    Has<LastSaveFailed>,
);

fn show_reason(
    me: Option<Single<Hindrances, With<OwnPlayer>>>,
    mut texts: Query<(&mut Text, &mut Node), With<ReasonText>>,
) {
    let reason = match me.as_deref() {
        None => Some("Nothing can be bought without a connection."),
        Some((_, true, ..)) => {
            Some("Nothing can be bought while you play on defaults: you could not keep it.")
        }
        Some((false, ..)) => Some("Nothing can be bought before your data is loaded."),
        Some((.., true, _)) => Some("Nothing can be bought: the store refuses to save you."),
        Some((.., true)) => Some("Nothing can be bought until you can be saved again."),
        Some(_) => None,
    };
    for (mut text, mut node) in &mut texts {
        text.set_if_neq(Text(reason.unwrap_or_default().to_owned()));
        let display = if reason.is_some() {
            Display::Flex
        } else {
            Display::None
        };
        if node.display != display {
            node.display = display;
        }
    }
}

fn allow_buying(
    shop: Res<Shop>,
    heard: Option<Single<&OwnPurchases, With<OwnPlayer>>>,
    buttons: Query<(Entity, &BuyButton, Has<InteractionDisabled>)>,
    mut commands: Commands,
) {
    for (button, BuyButton(product), is_disabled) in &buttons {
        let purchase = shop.purchases.get(product);
        let is_pending = purchase.is_some_and(|purchase| purchase.is_pending(heard.as_deref().copied()));
        if is_pending && !is_disabled {
            commands.entity(button).insert(InteractionDisabled);
        } else if is_disabled && !is_pending {
            commands.entity(button).remove::<InteractionDisabled>();
        }
    }
}

fn forbid_buying(
    buttons: Query<Entity, (With<BuyButton>, Without<InteractionDisabled>)>,
    mut commands: Commands,
) {
    for button in &buttons {
        commands.entity(button).insert(InteractionDisabled);
    }
}
