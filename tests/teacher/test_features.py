"""The features against the textbook's recurrences, written out with pandas and plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.teacher.bars import Floats
from gpusched.teacher.features import FEATURES, features
from gpusched.teacher.trial import COLUMNS
from tests.teacher.support import bars, walk

NAN = float("nan")


def recursive(values: list[float], first: int, period: int, weight: float) -> list[float]:
    """A mean of `period` values from index `first` on, then each next value weighted in: seeded as in Wilder's book."""
    result = [NAN] * len(values)
    if len(values) >= first + period:
        start = first + period - 1
        result[start] = sum(values[first : start + 1]) / period
        for t in range(start + 1, len(values)):
            result[t] = result[t - 1] + weight * (values[t] - result[t - 1])
    return result


def ema(values: list[float], period: int, first: int = 0) -> list[float]:
    return recursive(values, first, period, 2 / (period + 1))


def wilder(values: list[float], period: int, first: int) -> list[float]:
    return recursive(values, first, period, 1 / period)


def rsi(close: pd.Series[float], period: int) -> list[float]:
    change = close.diff()
    up = np.array(wilder(change.clip(lower=0).tolist(), period, 1))
    down = np.array(wilder((-change).clip(lower=0).tolist(), period, 1))
    index: list[float] = (100 * up / (up + down)).tolist()
    return index


def true_range(frame: pd.DataFrame) -> list[float]:
    before = frame.close.shift()
    spans = [frame.high - frame.low, (frame.high - before).abs(), (frame.low - before).abs()]
    ranges: list[float] = pd.concat(spans, axis=1).max(axis=1).tolist()
    return ranges


def macd(close: list[float]) -> tuple[Floats, Floats, Floats]:
    """Both averages start on the same bar, and nothing is shown before the signal line has its first value."""
    line = np.array(ema(close, 12, 26 - 12)) - np.array(ema(close, 26))
    signal = np.array(ema(line.tolist(), 9, 25))
    line[:33] = NAN
    return line, signal, line - signal


def adx(frame: pd.DataFrame, period: int) -> list[float]:
    """Wilder's sums start with period − 1 values; the average index is a mean of `period` indices, then smoothed."""
    up, down = frame.high.diff(), -frame.low.diff()
    moves = {
        "plus": up.where((up > down) & (up > 0), 0.0).tolist(),
        "minus": down.where((down > up) & (down > 0), 0.0).tolist(),
        "range": true_range(frame),
    }
    smooth = {}
    for name, values in moves.items():
        sums = [NAN] * len(values)
        running = sum(values[1:period])
        for t in range(period, len(values)):
            running = running - running / period + values[t]
            sums[t] = running
        smooth[name] = np.array(sums)
    plus, minus = smooth["plus"] / smooth["range"], smooth["minus"] / smooth["range"]
    index = 100 * np.abs(plus - minus) / (plus + minus)
    return wilder(index.tolist(), period, period)


def expected(frame: pd.DataFrame) -> pd.DataFrame:
    close = frame.close
    middle = close.rolling(20).mean()
    spread = 2 * close.rolling(20).std(ddof=0)
    typical = (frame.high + frame.low + frame.close) / 3
    line, signal, histogram = macd(close.tolist())
    ranges = true_range(frame)
    return pd.DataFrame(
        {
            "sma_20": middle,
            "sma_50": close.rolling(50).mean(),
            "ema_12": ema(close.tolist(), 12),
            "ema_26": ema(close.tolist(), 26),
            "rsi_14": rsi(close, 14),
            "atr_14": wilder(ranges, 14, 1),
            "vwap": (typical * frame.volume).cumsum() / frame.volume.cumsum(),
            "bb_upper": middle + spread,
            "bb_middle": middle,
            "bb_lower": middle - spread,
            "macd_line": line,
            "macd_signal": signal,
            "macd_histogram": histogram,
            "adx_14": adx(frame, 14),
            "obv": frame.volume.iloc[0] + (np.sign(close.diff().fillna(0)) * frame.volume).cumsum(),
        }
    )


@pytest.mark.parametrize(("count", "seed"), [(1, 1), (20, 2), (34, 3), (60, 4), (300, 5)])
def test_equal_to_the_textbook(count: int, seed: int) -> None:
    rows = walk(count, seed)
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close", "volume"])
    found = features(bars(rows))
    assert found.shape == (count, 15)
    table = expected(frame)
    assert tuple(table.columns) == FEATURES
    assert len(FEATURES) == COLUMNS, "a trial of a device has as many"
    for place, name in enumerate(FEATURES):
        np.testing.assert_allclose(found[:, place], table[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_all_of_them_have_values_after_50_bars() -> None:
    found = features(bars(walk(60)))
    first = {name: int(np.isfinite(found[:, place]).argmax()) for place, name in enumerate(FEATURES)}
    assert first == {
        "sma_20": 19,
        "sma_50": 49,
        "ema_12": 11,
        "ema_26": 25,
        "rsi_14": 14,
        "atr_14": 14,
        "vwap": 0,
        "bb_upper": 19,
        "bb_middle": 19,
        "bb_lower": 19,
        "macd_line": 33,
        "macd_signal": 33,
        "macd_histogram": 33,
        "adx_14": 27,
        "obv": 0,
    }
    assert np.isfinite(found[49:]).all()


@settings(max_examples=30)
@given(st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_no_feature_sees_a_later_bar(cut: int, seed: int) -> None:
    rows = walk(150, seed)
    np.testing.assert_array_equal(features(bars(rows[:cut])), features(bars(rows))[:cut])


def test_nothing_traded_has_no_average_price() -> None:
    rows = [(o, h, lo, c, 0.0 if number < 3 else v) for number, (o, h, lo, c, v) in enumerate(walk(6))]
    average = features(bars(rows))[:, FEATURES.index("vwap")]
    assert np.isnan(average).tolist() == [True, True, True, False, False, False]


def test_a_flat_market_has_no_infinities() -> None:
    found = features(bars([(5.0, 5.0, 5.0, 5.0, 10.0)] * 80))
    assert not np.isinf(found).any()
    np.testing.assert_allclose(found[-1, [0, 2, 6, 7]], 5.0)
