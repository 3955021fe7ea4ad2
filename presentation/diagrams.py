"""The pictures of how verger works, drawn as SVG in French for the slides, in English for docs."""

from html import escape

from verger.networks.engines import OpenVinoEngine
from verger.networks.registry import MOBILENET_V2
from verger.settings import DEFAULT_COMPONENTS, RunSettings

READERS = RunSettings.model_fields["read_ahead"].default
WAVE = RunSettings.model_fields["wave_size"].default

INK, FAINT, PAPER = "#26312a", "#8a958d", "#f6f5ef"
LEAF, LEAF_PALE, FRUIT, FRUIT_PALE, SKY_PALE = (
    "#3f7d4e", "#e3efe4", "#c8553d", "#fbe6df", "#e4edf5",
)  # fmt: skip
FONT = "DejaVu Sans, Arial, sans-serif"
LINE = 19


def box(x: float, y: float, width: float, height: float, title: str, *lines: str,
        fill: str = LEAF_PALE, edge: str = LEAF) -> str:  # fmt: skip
    """A rounded box with a bold title and lines of text, all centred."""
    middle, top = x + width / 2, y + height / 2 - LINE * len(lines) / 2 + 6
    shapes = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{fill}" '
        f'stroke="{edge}" stroke-width="1.6"/>',
        text(middle, top, title, size=16, weight="bold"),
    ]
    shapes += [text(middle, top + LINE * (n + 1), line, size=13) for n, line in enumerate(lines)]
    return "\n".join(shapes)


def text(x: float, y: float, words: str, *, size: int = 13, weight: str = "normal",
         colour: str = INK, anchor: str = "middle") -> str:  # fmt: skip
    """A line of text."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(words)}</text>'
    )


def arrow(path: str, colour: str = INK, *, dashed: bool = False) -> str:
    """An arrow along an SVG path."""
    dash = ' stroke-dasharray="6 5"' if dashed else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash} '
        f'marker-end="url(#{"fruit" if colour == FRUIT else "ink"})"/>'
    )


def area(x: float, y: float, width: float, height: float, title: str, colour: str = FAINT) -> str:
    """A dashed frame with its name in the upper right corner."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="14" fill="{PAPER}" '
        f'stroke="{colour}" stroke-width="1.4" stroke-dasharray="4 4"/>'
        + text(x + width - 14, y + 22, title, size=14, weight="bold", colour=colour, anchor="end")
    )


def picture(width: int, height: int, *shapes: str) -> str:
    """All shapes together."""
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        for name, colour in (("ink", INK), ("fruit", FRUIT))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="{FONT}">\n<defs>{heads}</defs>\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def architecture(fr: bool) -> str:
    """The whole chain."""

    def t(french: str, english: str) -> str:
        return french if fr else english

    return picture(
        1160, 430,
        box(10, 150, 150, 110, "Images", t("dossier ou S3", "folder or S3"), "JPEG, PNG, WebP…",
            fill=SKY_PALE, edge="#5b7fa3"),
        box(215, 20, 200, 104, t("Pilote", "Driver"), t("liste, compare,", "lists, compares,"),
            t("découpe en vagues", "cuts into waves")),
        area(215, 150, 450, 265, t("Exécuteurs Spark", "Spark executors")),
        box(235, 185, 190, 95, t("Lire, décoder", "Read, decode"),
            t(f"en avance, {READERS} fils", f"ahead, {READERS} threads"),
            t("224 × 224, bicubique", "224 × 224, bicubic")),
        box(455, 185, 190, 95, "MobileNetV2", t(f"par lots de {OpenVinoEngine.batch_size},", f"batches of {OpenVinoEngine.batch_size},"),
            t("un fil par processus", "a thread a process")),
        box(235, 305, 190, 95, t("Moments", "Moments"), t("moyenne, dispersion", "mean, scatter"),
            t("par partition", "of each partition")),
        box(455, 305, 190, 95, t("Projeter", "Project"), t(f"{MOBILENET_V2.width} → {DEFAULT_COMPONENTS} nombres", f"{MOBILENET_V2.width} → {DEFAULT_COMPONENTS} numbers")),
        box(720, 170, 190, 125, t("Caractéristiques", "Features"), f"Parquet, {MOBILENET_V2.width} × float32",
            t("écrites une fois,", "written once,"), t("puis relues", "then read back"),
            fill=SKY_PALE, edge="#5b7fa3"),
        box(720, 20, 190, 104, t("Table", "Table"), t("une ligne par fichier,", "a row a file,"),
            t("un commit par vague", "a commit a wave"), fill=SKY_PALE, edge="#5b7fa3"),
        box(960, 170, 190, 235, t("Matrice", "Matrix"), "CSV, Parquet", t("variance", "variance"),
            "PipelineModel", t("manifeste", "manifest"), t("rejets et raisons", "rejects, reasons"),
            fill=FRUIT_PALE, edge=FRUIT),
        arrow("M160 232H233"),
        arrow("M315 124V183"), text(322, 143, t("chemins", "paths"), anchor="start"),
        arrow("M415 72H490V183", FRUIT),
        text(425, 60, t("poids diffusés une fois", "weights, broadcast once"), size=14, colour=FRUIT,
             anchor="start"),
        arrow("M425 232H453"), arrow("M645 232H718"),
        arrow("M815 170V126"),
        arrow("M780 295C780 430 640 438 330 402", dashed=True),
        arrow("M425 352H453"), text(440, 343, t("ACP", "PCA"), size=12),
        arrow("M645 352H958"),
    )  # fmt: skip


def broadcast(fr: bool, megabytes: float, images: int, task_size: int) -> str:
    """What it saves to send the network once to an executor, and not with each task."""

    def t(french: str, english: str) -> str:
        return french if fr else english

    tasks = -(-images // task_size)
    size = f"{megabytes:.0f} " + t("Mo", "MB")
    many = f"{tasks:,}".replace(",", "\u202f" if fr else ",")
    shapes = [
        area(
            10,
            10,
            550,
            330,
            t("Le réseau part avec chaque tâche", "The network goes with each task"),
        ),
        area(600, 10, 550, 330, t("Le réseau est diffusé", "The network is broadcast"), LEAF),
        box(40, 130, 130, 80, t("Pilote", "Driver"), size),
        box(630, 130, 130, 80, t("Pilote", "Driver"), size),
    ]
    names = [f"{t('tâche', 'task')} {number}" for number in ("1", "2", "3", "4")]
    names += ["…", f"{t('tâche', 'task')} {many}"]
    for row in range(6):
        y = 50 + 40 * row
        shapes += [arrow(f"M170 170L368 {y + 15}", FRUIT),
                   box(370, y, 160, 30, names[row],
                       fill=FRUIT_PALE, edge=FRUIT)]  # fmt: skip
    for row in range(2):
        y = 70 + 115 * row
        shapes += [arrow(f"M760 170L928 {y + 45}"),
                   box(930, y, 190, 90, t("exécuteur", "executor") + f" {row + 1}",
                       t("un moteur par processus,", "an engine a process,"),
                       t("gardé de tâche en tâche", "kept from task to task"))]  # fmt: skip
    sent = f"{megabytes * tasks / 1000:.1f}".replace(".", "," if fr else ".") + " " + t("Go", "GB")
    shapes += [
        text(285, 320, t(f"{many} tâches × {size} = {sent}", f"{many} tasks × {size} = {sent}"), size=17,
             weight="bold", colour=FRUIT),
        text(875, 320, t(f"une fois par exécuteur : {size}", f"once an executor: {size}"), size=17,
             weight="bold", colour=LEAF),
    ]  # fmt: skip
    return picture(1160, 350, *shapes)


def ledger(fr: bool) -> str:
    """How a run goes on, and a folder grows."""

    def t(french: str, english: str) -> str:
        return french if fr else english

    return picture(
        1160, 300,
        box(10, 30, 200, 90, t("Liste", "Listing"), t("chemin, taille, date", "path, size, time"),
            t("ou ETag", "or ETag"), fill=SKY_PALE, edge="#5b7fa3"),
        box(10, 180, 200, 90, t("Table", "Table"), t("images déjà faites", "images done already"),
            fill=SKY_PALE, edge="#5b7fa3"),
        box(290, 100, 180, 100, t("Reste à faire", "To be done"), t("liste − table", "listing − table")),
        box(550, 100, 180, 100, t("Une vague", "A wave"), f"{WAVE} images",
            t("de toutes les classes", "of all classes")),
        box(810, 30, 160, 80, t("caractéristiques", "features"), "Parquet", fill=SKY_PALE, edge="#5b7fa3"),
        box(810, 190, 160, 80, t("rejets", "rejected"), "Parquet", fill=SKY_PALE, edge="#5b7fa3"),
        box(1020, 100, 130, 100, t("Valider", "Commit"), t("une entrée du", "one entry of"),
            t("journal Delta", "Delta's log"), fill=FRUIT_PALE, edge=FRUIT),
        arrow("M210 75L288 130"), arrow("M210 225L288 170"), arrow("M470 150H548"),
        arrow("M730 140L808 72"), arrow("M730 160L808 228"),
        arrow("M970 72L1030 98"), arrow("M970 228L1030 202"),
        arrow("M1085 200V290H110V272", FRUIT),
        text(640, 283, t("interrompu ? la même commande reprend ici", "interrupted? the same command goes on here"),
             size=14, colour=FRUIT),
    )  # fmt: skip


def cloud(fr: bool) -> str:
    """Where things are on AWS."""

    def t(french: str, english: str) -> str:
        return french if fr else english

    return picture(
        1160, 400,
        box(10, 150, 180, 110, t("Portable", "Laptop"), "verger cloud …", t("droits : chaîne AWS", "rights: AWS chain")),
        area(240, 10, 910, 380, t("AWS, Union européenne seulement", "AWS, European Union only")),
        box(270, 60, 240, 120, "S3", t("images, résultats, journaux", "images, results, logs"),
            t("chiffré, fermé au public", "encrypted, closed to the public"), fill=SKY_PALE, edge="#5b7fa3"),
        area(560, 50, 560, 225, t("EMR : Spark sur YARN", "EMR: Spark on YARN"), LEAF),
        box(585, 95, 160, 155, t("Nœud primaire", "Primary node"), t("le pilote", "the driver")),
        box(780, 95, 145, 155, t("Nœud cœur", "Core node"), t("exécuteurs", "executors")),
        box(955, 95, 145, 155, t("Nœud cœur", "Core node"), t("exécuteurs", "executors")),
        box(270, 290, 240, 80, t("Budget et alarme", "Budget and alarm"), t("refus au-delà du plafond", "refused above the limit"),
            fill=FRUIT_PALE, edge=FRUIT),
        box(560, 290, 560, 80, t("La grappe se termine seule", "The cluster ends by itself"),
            t("à la fin du travail, à l'inactivité, et à l'échéance", "when the work ends, when idle, and at the deadline"),
            fill=FRUIT_PALE, edge=FRUIT),
        arrow("M190 190L268 130"), arrow("M190 220L268 310", FRUIT),
        arrow("M510 110H583"), arrow("M583 150H512"), arrow("M745 172H778"), arrow("M690 250C740 276 970 276 1020 253"),
    )  # fmt: skip
