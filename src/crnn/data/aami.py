"""Heartbeats as the AAMI standard groups them, and the division of the MIT-BIH records by patient."""

from __future__ import annotations

AAMI: dict[str, str] = {
    **dict.fromkeys("NLRej", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
"""WFDB annotation code -> class: normal and bundle branch block (N), supraventricular ectopic (S), ventricular ectopic
(V), fusion (F), paced or unclassifiable (Q).

Source: ANSI/AAMI EC57:1998, as in de Chazal, O'Dwyer & Reilly 2004, IEEE TBME 51(7), 1196-1206, table I.
"""

DS1: tuple[str, ...] = (
    *("101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122"),
    *("124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230"),
)
"""Records of the MIT-BIH arrhythmia database to train on. Source: de Chazal et al. 2004."""

DS2: tuple[str, ...] = (
    *("100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210"),
    *("212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234"),
)
"""Records to test on; no patient of DS1 among them but one: 202 was recorded from the patient of 201."""
