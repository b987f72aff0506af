"""The 15 indicators of a bar that a model sees, each computed (mostly by TA-Lib) from its window's bars up to that bar.

A value is NaN until the indicator has seen enough bars. LightGBM handles missing values; dropping those rows would cost
a window of 180 days of daily bars 40 % of them. For the formulas see https://ta-lib.org/functions.
"""

from __future__ import annotations

import numpy as np
import talib

from gpusched.teacher.bars import Bars, Floats

FEATURES = (
    "sma_20",
    "sma_50",
    "ema_12",
    "ema_26",
    "rsi_14",
    "atr_14",
    "vwap",
    "bb_upper",
    "bb_middle",
    "bb_lower",
    "macd_line",
    "macd_signal",
    "macd_histogram",
    "adx_14",
    "obv",
)


def features(bars: Bars) -> Floats:
    """(n, 15) in the order of `FEATURES`; each column is contiguous."""
    close, high, low, volume = bars.close, bars.high, bars.low, bars.volume
    columns = (
        talib.SMA(close, 20),
        talib.SMA(close, 50),
        talib.EMA(close, 12),
        talib.EMA(close, 26),
        talib.RSI(close, 14),
        talib.ATR(high, low, close, 14),
        vwap(bars),
        *talib.BBANDS(close, 20, 2.0, 2.0),
        *talib.MACD(close, 12, 26, 9),
        talib.ADX(high, low, close, 14),
        talib.OBV(close, volume),
    )
    return np.array(columns).T


def vwap(bars: Bars) -> Floats:
    """(n,) mean of the typical price (high + low + close) / 3 since the window's first bar, weighted by volume.

    NaN until something was traded.
    """
    typical = (bars.high + bars.low + bars.close) / 3
    traded = np.cumsum(bars.volume)
    value = np.cumsum(typical * bars.volume)
    means = np.full(len(bars), np.nan)
    np.divide(value, traded, out=means, where=traded > 0)
    return means
