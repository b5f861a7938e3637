//! What the player has, beside the field: plain queries on the mirror, each for what has changed.

use bevy::{input_focus::tab_navigation::TabGroup, prelude::*, ui_widgets::Activate};
use bevy_player_data::prelude::*;

use super::{
    link::Account,
    map::Map,
    saves::{SaveState, Saves},
    shop::ToggleShop,
    theme::{self, Look, Theme, color_of, picture},
};
use crate::game::{
    data::{Coins, Inventory, Level, Relics, Settings, Stack, Title},
    net::FIELD,
};

/// How wide the HUD is.
pub const WIDTH: f32 = 264.0;
/// How many kinds of things the inventory shows: more than there are.
const SLOTS: usize = 8;
const SLOT: f32 = 50.0;

#[derive(Component)]
struct NameText;
#[derive(Component)]
struct TitleText;
#[derive(Component)]
struct CoinsText;
#[derive(Component)]
struct LevelText;
#[derive(Component)]
struct PointsText;
#[derive(Component)]
struct LevelBar;
#[derive(Component)]
struct Slots;
#[derive(Component)]
struct SaveDot;
#[derive(Component)]
struct SaveText;
#[derive(Component)]
struct KeysText;

pub fn plugin(app: &mut App) {
    app.add_systems(Startup, spawn_hud).add_systems(
        // Before the UI is laid out, or a rebuilt part would be missing for a frame.
        Update,
        (
            show_coins,
            show_level,
            show_color,
            show_title,
            show_inventory,
            show_saves,
            show_keys.run_if(resource_changed::<Account>),
        ),
    );
}

fn spawn_hud(theme: Res<Theme>, account: Res<Account>, map: Res<Map>, mut commands: Commands) {
    let column = Node {
        position_type: PositionType::Absolute,
        right: px(0),
        top: px(0),
        bottom: px(0),
        width: px(WIDTH),
        padding: UiRect::axes(px(16), px(12)),
        flex_direction: FlexDirection::Column,
        row_gap: px(11),
        border: px(1).left(),
        ..default()
    };
    commands
        .spawn((
            column,
            BackgroundColor(theme::PANEL),
            BorderColor::all(theme::EDGE),
            TabGroup::new(0),
        ))
        .with_children(|hud| {
            hud.spawn((
                stack(2.0),
                children![
                    theme.heading("Coin Rush", theme::SMALL, theme::GOLD),
                    (theme.heading(&account.name, theme::LARGE, theme::TEXT), NameText),
                    (theme.text("", theme::SMALL, theme::MUTED), TitleText),
                ],
            ));
            hud.spawn((
                row(10.0),
                children![
                    picture(theme.coin.clone()),
                    (theme.heading("–", theme::HUGE, theme::TEXT), CoinsText),
                ],
            ));
            spawn_level(hud, &theme);
            hud.spawn((
                stack(8.0),
                children![
                    theme.text("Inventory", theme::SMALL, theme::MUTED),
                    (slots(), Slots),
                ],
            ));
            hud.spawn((
                stack(8.0),
                children![
                    theme.text("The field", theme::SMALL, theme::MUTED),
                    (whole_width(), ImageNode::new(map.0.clone())),
                ],
            ));
            hud.spawn(Node {
                flex_grow: 1.0,
                ..default()
            });
            spawn_save_state(hud, &theme);
            hud.spawn((
                theme.button("Shop (B)", Look::Primary),
                bevy::ui_widgets::observe(|_: On<Activate>, mut commands: Commands| {
                    commands.trigger(ToggleShop);
                }),
            ));
            hud.spawn((theme.text("", theme::SMALL, theme::MUTED), KeysText));
        });
}

/// Things below each other.
fn stack(gap: f32) -> Node {
    Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(gap),
        ..default()
    }
}

/// Things beside each other.
fn row(gap: f32) -> Node {
    Node {
        align_items: AlignItems::Center,
        column_gap: px(gap),
        ..default()
    }
}

/// Something as wide as the HUD, in the field's proportions.
fn whole_width() -> Node {
    Node {
        width: percent(100),
        aspect_ratio: Some(f32::from(FIELD.x) / f32::from(FIELD.y)),
        ..default()
    }
}

fn spawn_level(hud: &mut ChildSpawnerCommands<'_>, theme: &Theme) {
    let apart = Node {
        justify_content: JustifyContent::SpaceBetween,
        align_items: AlignItems::Baseline,
        ..default()
    };
    let rail = Node {
        height: px(10),
        border_radius: BorderRadius::MAX,
        overflow: Overflow::clip(),
        ..default()
    };
    let full = Node {
        height: percent(100),
        width: percent(0),
        ..default()
    };
    hud.spawn((
        stack(6.0),
        children![
            (
                apart,
                children![
                    (theme.heading("Level –", theme::BODY, theme::TEXT), LevelText),
                    (theme.text("", theme::SMALL, theme::MUTED), PointsText),
                ]
            ),
            (
                rail,
                BackgroundColor(theme::RAISED),
                children![(full, BackgroundColor(theme::GOLD), LevelBar)]
            ),
        ],
    ));
}

fn slots() -> Node {
    Node {
        flex_wrap: FlexWrap::Wrap,
        column_gap: px(8),
        row_gap: px(8),
        ..default()
    }
}

fn spawn_save_state(hud: &mut ChildSpawnerCommands<'_>, theme: &Theme) {
    let place = Node {
        padding: UiRect::axes(px(10), px(8)),
        border_radius: BorderRadius::all(px(6)),
        ..row(8.0)
    };
    let dot = Node {
        width: px(10),
        height: px(10),
        flex_shrink: 0.0,
        border_radius: BorderRadius::MAX,
        ..default()
    };
    hud.spawn((
        place,
        BackgroundColor(theme::INK),
        children![
            (dot, BackgroundColor(theme::MUTED), SaveDot),
            (theme.text("", theme::SMALL, theme::MUTED), SaveText),
        ],
    ));
}

/// The player's own entity, when its `T` has just come or changed.
type MyNew<'w, 's, T> = Single<'w, 's, &'static T, (With<OwnPlayer>, Changed<T>)>;

/// Who can hop is told so, and where they are.
fn show_keys(account: Res<Account>, mut text: Single<&mut Text, With<KeysText>>) {
    "Walk: arrows or WASD · Color: 1 to 5\nTrade a relic: T · Figures: F3".clone_into(&mut text.0);
    if account.can_hop() {
        text.0 += &format!("\nHop: H · on {}", account.server());
    }
}

fn show_coins(coins: MyNew<Coins>, mut text: Single<&mut Text, With<CoinsText>>) {
    text.0 = coins.0.to_string();
}

fn show_level(
    level: MyNew<Level>,
    mut number: Single<&mut Text, (With<LevelText>, Without<PointsText>)>,
    mut points: Single<&mut Text, With<PointsText>>,
    mut bar: Single<&mut Node, With<LevelBar>>,
) {
    number.0 = format!("Level {}", level.number);
    points.0 = format!("{} of {}", level.points, level.goal());
    bar.width = percent(100.0 * level.points as f32 / level.goal() as f32);
}

fn show_color(settings: MyNew<Settings>, mut name: Single<&mut TextColor, With<NameText>>) {
    name.0 = color_of(settings.color);
}

fn show_title(me: Single<Option<&Title>, With<OwnPlayer>>, mut text: Single<&mut Text, With<TitleText>>) {
    let title = me.map_or("no title yet", |title| title.0.as_str());
    if text.0 != title {
        title.clone_into(&mut text.0);
    }
}

/// Things or relics came or went.
type NewThings = (With<OwnPlayer>, Or<(Changed<Inventory>, Changed<Relics>)>);

fn show_inventory(
    things: Single<(&Inventory, Option<&Relics>), NewThings>,
    slots: Single<Entity, With<Slots>>,
    theme: Res<Theme>,
    mut commands: Commands,
) {
    let (inventory, relics) = *things;
    let relics = relics.map_or(0, |relics| relics.0.len());
    let stacks = inventory
        .stacks
        .iter()
        .map(|&Stack { item, count }| (theme.picture_of(item), u64::from(count)));
    let relics = (relics > 0).then(|| (theme.relic.clone(), relics as u64));
    let mut filled = stacks.chain(relics);
    commands
        .entity(*slots)
        .despawn_related::<Children>()
        .with_children(|slots| {
            for _ in 0..SLOTS {
                let mut slot = slots.spawn(empty_slot());
                if let Some((image, count)) = filled.next() {
                    slot.with_children(|slot| {
                        slot.spawn(picture(image));
                        slot.spawn((
                            count_badge(),
                            children![theme.heading(count.to_string(), theme::SMALL, theme::TEXT)],
                        ));
                    });
                }
            }
        });
}

fn empty_slot() -> impl Bundle {
    let node = Node {
        width: px(SLOT),
        height: px(SLOT),
        border: px(1).all(),
        border_radius: BorderRadius::all(px(6)),
        justify_content: JustifyContent::Center,
        align_items: AlignItems::Center,
        ..default()
    };
    (
        node,
        BackgroundColor(theme::RAISED),
        BorderColor::all(theme::EDGE),
    )
}

fn count_badge() -> impl Bundle {
    let node = Node {
        position_type: PositionType::Absolute,
        right: px(2),
        bottom: px(1),
        padding: UiRect::horizontal(px(3)),
        border_radius: BorderRadius::all(px(4)),
        ..default()
    };
    (node, BackgroundColor(theme::INK))
}

fn show_saves(
    me: Option<Single<SaveState, With<OwnPlayer>>>,
    saves: Res<Saves>,
    time: Res<Time<Real>>,
    mut text: Single<(&mut Text, &mut TextColor), With<SaveText>>,
    mut dot: Single<&mut BackgroundColor, With<SaveDot>>,
) {
    let (words, color) = me.map_or_else(
        || ("not connected".to_owned(), theme::MUTED),
        |me| me.words(&saves, time.elapsed()),
    );
    text.0.set_if_neq(Text(words));
    text.1.set_if_neq(TextColor(color));
    dot.set_if_neq(BackgroundColor(color));
}
