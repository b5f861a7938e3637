//! The client on a terminal: the field, the player's own data beside it, and the news below.

use std::{collections::VecDeque, io, time::Duration};

use bevy::{ecs::query::QueryData, prelude::*};
use bevy_player_data::{client::LastSaveFailed, prelude::*};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};

use crate::{
    connection::{Field, News},
    game::{
        data::{Bought, Cell, Coins, Inventory, Level, Paint, Relics, Settings, Title},
        net::{self, Direction, FIELD, FieldView, PlayerView, Wish},
    },
    hop::Hop,
    wishes::Wishes,
};

/// How many news are kept on the screen.
const NEWS: usize = 4;
/// The height and the width of the frame around something.
const FRAME: u16 = 2;

/// The terminal, in a state that nobody else could use. Dropping it restores it.
#[derive(Resource)]
pub struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The tag of the player, by which they are found on the field.
#[derive(Resource)]
struct MyTag(u32);

/// The newest at the back.
#[derive(Resource, Default)]
struct Headlines(VecDeque<String>);

/// Takes the terminal.
///
/// # Errors
/// When it can't be used like that.
pub fn install(app: &mut App) -> io::Result<()> {
    app.insert_resource(Screen(ratatui::try_init()?))
        .init_resource::<Headlines>()
        .add_observer(|loaded: On<PlayerLoaded>, mut commands: Commands| {
            commands.insert_resource(MyTag(net::tag(loaded.player)));
        })
        .add_systems(Update, (read_keys, note_news))
        .add_systems(PostUpdate, draw);
    Ok(())
}

fn read_keys(
    mut wishes: ResMut<Wishes>,
    mut exit: MessageWriter<AppExit>,
    me: Query<(), With<OwnPlayer>>,
    mut commands: Commands,
) -> Result {
    while event::poll(Duration::ZERO)? {
        let Event::Key(key) = event::read()? else { continue };
        if key.code == KeyCode::Char('h') && key.kind == KeyEventKind::Press {
            commands.trigger(Hop);
            continue;
        }
        let Some(wish) = wish_of(key) else { continue };
        match wish {
            // Before there is anything to retire from.
            Wish::Retire if me.is_empty() => drop(exit.write(AppExit::Success)),
            // Whoever holds a key down wants to go on walking, not to walk a minute longer.
            Wish::Step(_) | Wish::Trade if !wishes.0.is_empty() => {}
            wish => wishes.0.push_back(wish),
        }
    }
    Ok(())
}

fn wish_of(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Wish::Retire,
        KeyCode::Char('q') | KeyCode::Esc => Wish::Retire,
        KeyCode::Char('w') | KeyCode::Up => Wish::Step(Direction::Up),
        KeyCode::Char('s') | KeyCode::Down => Wish::Step(Direction::Down),
        KeyCode::Char('a') | KeyCode::Left => Wish::Step(Direction::Left),
        KeyCode::Char('d') | KeyCode::Right => Wish::Step(Direction::Right),
        KeyCode::Char('t') => Wish::Trade,
        KeyCode::Char(digit @ '1'..='9') => Wish::Wear(*Paint::ALL.get(digit as usize - '1' as usize)?),
        _ => return None,
    })
}

fn note_news(mut news: MessageReader<News>, mut headlines: ResMut<Headlines>) {
    headlines.0.extend(news.read().map(|News(text)| text.clone()));
    let too_many = headlines.0.len().saturating_sub(NEWS);
    headlines.0.drain(..too_many);
}

/// The player, as far as their data is there.
#[derive(QueryData)]
struct Me {
    data: Option<(
        &'static Coins,
        &'static Level,
        &'static Inventory,
        &'static Settings,
        &'static Cell,
        &'static Bought,
    )>,
    relics: Option<&'static Relics>,
    title: Option<&'static Title>,
    fallback: Option<&'static PlayerFallback>,
    save_failed: Option<&'static LastSaveFailed>,
    save_blocked: Option<&'static SaveBlocked>,
}

fn draw(
    mut screen: ResMut<Screen>,
    me: Option<Single<Me, With<OwnPlayer>>>,
    my_tag: Option<Res<MyTag>>,
    field: Res<Field>,
    headlines: Res<Headlines>,
) -> Result {
    let my_tag = my_tag.map(|tag| tag.0);
    screen.0.draw(|frame| {
        let [top, bottom] = Layout::vertical([
            Constraint::Length(u16::from(FIELD.y) + FRAME),
            Constraint::Min(NEWS as u16 + FRAME),
        ])
        .areas(frame.area());
        let [left, right] = Layout::horizontal([
            Constraint::Length(u16::from(FIELD.x) + FRAME),
            Constraint::Min(30),
        ])
        .areas(top);
        draw_field(frame, left, &field.0, my_tag);
        draw_me(frame, right, me.as_deref());
        let news = headlines
            .0
            .iter()
            .map(|text| Line::raw(text.as_str()))
            .collect::<Vec<_>>();
        frame.render_widget(
            Paragraph::new(news).block(Block::bordered().title(" news ")),
            bottom,
        );
    })?;
    Ok(())
}

fn draw_field(frame: &mut Frame<'_>, area: Rect, view: &FieldView, my_tag: Option<u32>) {
    let empty = Span::raw(" ");
    let mut rows = vec![vec![empty; usize::from(FIELD.x)]; usize::from(FIELD.y)];
    let mut put = |Cell { x, y }: Cell, what: Span<'static>| {
        if let Some(cell) = rows
            .get_mut(usize::from(y))
            .and_then(|row| row.get_mut(usize::from(x)))
        {
            *cell = what;
        }
    };
    for &find in &view.finds {
        put(find, Span::styled("•", Color::Yellow));
    }
    // The player last, on top of everybody else.
    let (me, others): (Vec<&PlayerView>, Vec<_>) =
        view.players.iter().partition(|player| Some(player.tag) == my_tag);
    for player in others {
        put(player.cell, Span::styled("o", color_of(player.color)));
    }
    for player in me {
        put(
            player.cell,
            Span::styled("@", Style::new().fg(color_of(player.color)).bold()),
        );
    }
    let rows: Vec<Line<'_>> = rows.into_iter().map(Line::from).collect();
    frame.render_widget(
        Paragraph::new(rows).block(Block::bordered().title(" Coin Rush ")),
        area,
    );
}

fn draw_me(frame: &mut Frame<'_>, area: Rect, me: Option<&MeItem<'_, '_>>) {
    let mut lines = vec![];
    match me {
        None => lines.push(Line::raw("connecting…").dim()),
        Some(MeItem { data: None, .. }) => lines.push(Line::raw("loading your data…").dim()),
        Some(MeItem {
            data: Some((coins, level, inventory, settings, cell, bought)),
            relics,
            title,
            ..
        }) => lines.extend([
            Line::from(format!("coins      {}", coins.0)).bold(),
            Line::from(format!(
                "level      {}, {} of {} points to the next",
                level.number,
                level.points,
                level.goal()
            )),
            Line::from(format!(
                "title      {}",
                title.map_or("none yet", |title| title.0.as_str())
            )),
            Line::from(format!("inventory  {inventory}")),
            Line::from(format!(
                "relics     {}",
                relics.map_or("none yet".to_owned(), Relics::to_string)
            )),
            Line::from(format!("bought     {bought}")),
            Line::from(format!("color      {:?}", settings.color)).fg(color_of(settings.color)),
            Line::from(format!("at         {}, {}", cell.x, cell.y)),
        ]),
    }
    if let Some(me) = me {
        lines.push(Line::raw(""));
        lines.extend(troubles_of(me).map(|trouble| Line::from(trouble).red()));
    }
    lines.extend([
        Line::raw(""),
        Line::raw("move: wasd or arrows   color: 1 to 5   trade a relic: t   hop: h   leave: q").dim(),
    ]);
    let panel = Paragraph::new(lines)
        .wrap(Wrap { trim: true })
        .block(Block::bordered().title(" you "));
    frame.render_widget(panel, area);
}

/// What the player should know about their data.
fn troubles_of(me: &MeItem<'_, '_>) -> impl Iterator<Item = String> {
    let fallback = me
        .fallback
        .map(|fallback| format!("Nothing is saved: {}.", fallback.reason()));
    let failed = me
        .save_failed
        .map(|failed| format!("The last save failed: {}.", failed.reason()));
    let blocked = me
        .save_blocked
        .map(|blocked| format!("Saves are refused: {}.", blocked.reason()));
    [fallback, failed, blocked].into_iter().flatten()
}

const fn color_of(paint: Paint) -> Color {
    match paint {
        Paint::Red => Color::Red,
        Paint::Green => Color::Green,
        Paint::Blue => Color::Blue,
        Paint::Magenta => Color::Magenta,
        Paint::Cyan => Color::Cyan,
    }
}
