"""How near an average of each length comes to the one asked for: python docs/averages.py

For runs that saved the two kept lengths with 4, 8 and 16 checkpoints: the error of the profile, as
a share of it, and in brackets the sum of the sizes of the coefficients.
"""

from tinyldm.methods.power_ema import LENGTHS, Profile, synthesis

WANTED = (0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.25)


def main() -> None:
    print("| checkpoints |", " | ".join(f"{length:g}" for length in WANTED), "|")
    print("| --- |" + " --- |" * len(WANTED))
    for count in (4, 8, 16):
        kept = [Profile(s, (k + 1) / count) for k in range(count) for s in LENGTHS]
        cells = []
        for length in WANTED:
            x, error = synthesis(kept, Profile(length, 1.0))
            cells.append(f"{error:.1%} ({sum(map(abs, x)):.1f})")
        print(f"| {count} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
