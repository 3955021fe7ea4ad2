"""What the page says, in English and in French, and how each writes numbers."""

import re
from collections.abc import Callable
from typing import Literal, get_args

Language = Literal["en", "fr"]
LANGUAGES: tuple[str, ...] = get_args(Language)

Texts = dict[str, str]

_PAIRS: dict[str, tuple[str, str]] = {
    "title": ("verger report", "Rapport verger"),
    "skip": ("Skip to the content", "Aller au contenu"),
    "sections": ("Sections", "Sections"),
    "subtitle": ("{images} images in {classes} classes", "{images} images dans {classes} classes"),
    "subtitle_unlabelled": ("{images} images without classes", "{images} images sans classes"),
    "complete": ("Complete", "Terminé"),
    "interrupted": (
        "This run was interrupted: what follows is what it had committed. "
        "Give the same command again and it goes on.",
        "Ce calcul a été interrompu : voici ce qui était enregistré. "
        "Relancez la même commande, elle reprendra.",
    ),
    "too_many_rejected": (
        "Too many files were rejected, so there is no matrix. The features are kept.",
        "Trop de fichiers ont été rejetés : il n’y a pas de matrice. Les features sont gardées.",
    ),
    "deadline": (
        "The deadline came before the work was done. The same command goes on from here.",
        "L’échéance est arrivée avant la fin. La même commande reprendra d’ici.",
    ),
    "foreign": (
        "The manifest was written by another version ({version}): what this one does not "
        "understand is left out.",
        "Le manifeste vient d’une autre version ({version}) : ce que celle-ci ne comprend pas "
        "est omis.",
    ),
    "no_pca": (
        "This output has no PCA, so there is no map and nothing to compare.",
        "Ce résultat n’a pas d’ACP : il n’y a ni carte ni comparaison.",
    ),
    "problem": ("Could not be read: {what}", "Lecture impossible : {what}"),
    "images_gone": (
        "{count} pictures could not be shown: the images have gone from the input, cannot be "
        "read, or took too long.",
        "{count} vignettes manquent : les images ont quitté l’entrée, sont illisibles ou "
        "trop lentes à lire.",
    ),
    "no_picture": ("no picture", "pas d’image"),
    "unlabelled": ("(no class)", "(sans classe)"),
    # Headline
    "headline": ("At a glance", "En bref"),
    "images": ("images", "images"),
    "images_note": (
        "{featurized} computed, {reused} reused",
        "{featurized} calculées, {reused} reprises",
    ),
    "kept_note": (", {kept} kept", ", {kept} gardées"),
    "classes": ("classes", "classes"),
    "classes_note": (
        "{smallest} to {largest} images each",
        "{smallest} à {largest} images chacune",
    ),
    "rejected": ("rejected", "rejetés"),
    "rejected_note": ("of {listed} files listed", "sur {listed} fichiers listés"),
    "components": ("components", "composantes"),
    "components_note": ("of 1,280 features", "pour 1 280 features"),
    "variance": ("variance kept", "variance gardée"),
    "variance_note": ("by the components", "par les composantes"),
    "speed": ("images/s", "images/s"),
    "speed_note": ("while extracting", "pendant l’extraction"),
    "agreement": ("like neighbours", "voisins semblables"),
    "agreement_note": (
        "nearest neighbour of the same class; {count} not",
        "plus proche voisin de la même classe ; {count} non",
    ),
    "time": ("Time by stage", "Temps par étape"),
    "time_total": ("{seconds} in all", "{seconds} en tout"),
    # Map
    "map": ("Map of the images", "Carte des images"),
    "map_intro": (
        "Each point is an image, placed by its scores on two principal components. Images that "
        "look alike lie close together. {shown} of {rows} images are drawn, of each class in "
        "proportion to its size.",
        "Chaque point est une image, placée selon ses scores sur deux composantes principales. "
        "Les images qui se ressemblent sont proches. {shown} images sur {rows} sont dessinées, "
        "chaque classe en proportion de sa taille.",
    ),
    "axis_x": ("Horizontal", "Horizontal"),
    "axis_y": ("Vertical", "Vertical"),
    "highlight": ("Highlight", "Mettre en avant"),
    "all_classes": ("All classes", "Toutes les classes"),
    "reset": ("Reset view", "Vue initiale"),
    "map_hint": (
        "Drag to zoom. By keyboard: focus the map, then the arrow keys go from image to image.",
        "Glisser pour zoomer. Au clavier : placez-vous sur la carte, puis les flèches vont "
        "d’image en image.",
    ),
    "map_label": (
        "Scatter plot of the images on two components; arrow keys go from image to image",
        "Nuage des images sur deux composantes ; les flèches vont d’image en image",
    ),
    "one_component": (
        "There is a single component: the map shows it against itself.",
        "Il n’y a qu’une composante : la carte la montre contre elle-même.",
    ),
    "script_needed": (
        "The map and the curves need JavaScript.",
        "La carte et les courbes ont besoin de JavaScript.",
    ),
    # Variance
    "scree": ("Explained variance", "Variance expliquée"),
    "scree_intro": (
        "Bars: the share of the variance that each component explains. Line: their sum. The "
        "dashed line is the cut: {kept} components keep {variance}.",
        "Barres : part de la variance expliquée par chaque composante. Courbe : leur somme. "
        "Le trait pointillé est la coupure : {kept} composantes gardent {variance}.",
    ),
    "scree_none": (
        "The matrix comes from the PCA of another output, which has the variances.",
        "La matrice vient de l’ACP d’un autre résultat, qui contient les variances.",
    ),
    "scree_label": (
        "Scree plot and cumulative explained variance; the same numbers are in the table below",
        "Éboulis des variances et variance cumulée ; les mêmes nombres sont dans le tableau",
    ),
    "component": ("Component", "Composante"),
    "ratio": ("Explained variance ratio", "Part de variance expliquée"),
    "cumulative": ("Cumulative", "Cumulée"),
    "percent": ("%", "\u00a0%"),
    "as_table": ("As a table", "En tableau"),
    # Ends
    "ends": ("What the components look like", "À quoi ressemblent les composantes"),
    "ends_intro": (
        "The images at the two ends of each leading component, over all images, at most two of a "
        "class where there are others. What sets the two rows apart is what the component "
        "measures.",
        "Les images aux deux extrémités de chaque première composante, sur toutes les images, "
        "au plus deux par classe s’il y en a d’autres. Ce qui sépare les deux rangées est ce que "
        "la composante mesure.",
    ),
    "low": ("Low end", "Extrémité basse"),
    "high": ("High end", "Extrémité haute"),
    "of_variance": ("{ratio} of the variance", "{ratio} de la variance"),
    # Neighbours
    "neighbours": ("Nearest neighbours", "Plus proches voisins"),
    "neighbours_intro": (
        "Some images, and those nearest to them by Euclidean distance between scores. A "
        "neighbour of another class has a red frame.",
        "Quelques images et leurs plus proches voisines par distance euclidienne entre scores. "
        "Une voisine d’une autre classe a un cadre rouge.",
    ),
    "strangers": (
        "Images whose nearest neighbour is of another class",
        "Images dont la plus proche voisine est d’une autre classe",
    ),
    "strangers_intro": (
        "A wrong label, or two classes that look the same.",
        "Une étiquette fausse, ou deux classes qui se ressemblent.",
    ),
    "other_class": ("other class", "autre classe"),
    "class_pairs": ("Classes most alike", "Classes les plus semblables"),
    "class_pairs_intro": (
        "Spread of the two classes over the distance of their centres: above 1 they overlap. "
        "Each is shown by its image nearest to the other class.",
        "Étendue des deux classes rapportée à la distance de leurs centres : au-delà de 1, elles "
        "se recouvrent. Chacune est montrée par son image la plus proche de l’autre classe.",
    ),
    # Duplicates and outliers
    "duplicates": ("Near-duplicates", "Quasi-doublons"),
    "duplicates_intro": (
        "{count} of {compared} images have another one closer than 10 % of the usual distance "
        "between two images. The closest pairs, those in two classes first:",
        "{count} images sur {compared} en ont une autre à moins de 10 % de la distance usuelle "
        "entre deux images. Les paires les plus proches, d’abord celles entre deux classes :",
    ),
    "outliers": ("Outliers", "Images isolées"),
    "outliers_intro": (
        "Images furthest from their sixth nearest neighbour, in units of the usual distance "
        "between two images.",
        "Images les plus loin de leur sixième plus proche voisine, en unités de la distance "
        "usuelle entre deux images.",
    ),
    "compared": (
        "Neighbours, near-duplicates and outliers are looked for among {compared} of {rows} "
        "images, of each class in proportion.",
        "Voisins, doublons et images isolées sont cherchés parmi {compared} images sur {rows}, "
        "chaque classe en proportion.",
    ),
    "none_found": ("None.", "Aucun."),
    "too_few": ("There are too few images.", "Il y a trop peu d’images."),
    # Classes
    "sizes": ("Class sizes", "Taille des classes"),
    "sizes_more": ("All {count} classes", "Les {count} classes"),
    "sizes_ends": (
        "The largest and the smallest classes:",
        "Les classes les plus grandes et les plus petites :",
    ),
    "class": ("Class", "Classe"),
    # Rejected
    "rejections": ("Rejected files", "Fichiers rejetés"),
    "rejections_none": ("No file was rejected.", "Aucun fichier n’a été rejeté."),
    "and_more": ("and {count} more", "et {count} autres"),
    "file": ("File", "Fichier"),
    "detail": ("Detail", "Détail"),
    # Provenance
    "provenance": ("Provenance", "Provenance"),
    "input": ("Input", "Entrée"),
    "output": ("Output", "Sortie"),
    "started": ("Started", "Début"),
    "finished": ("Finished", "Fin"),
    "backbone": ("Backbone", "Réseau"),
    "weights": ("Weights", "Poids"),
    "licence": ("licence", "licence"),
    "engine": ("Engine", "Moteur"),
    "settings": ("Settings", "Réglages"),
    "default": ("default", "par défaut"),
    "credit": ("Images: {credit}.", "Images : {credit}."),
    "made_by": (
        "Made by verger {version}. This page asks nothing of any host.",
        "Fait par verger {version}. Cette page n’interroge aucun serveur.",
    ),
}

_SUMMARY = {
    "images": ("Images", "Images"),
    "matrix": ("Matrix", "Matrice"),
    "matrix_is": (
        "{rows} rows x {components} components, {share} of the variance",
        "{rows} lignes x {components} composantes, {share} de la variance",
    ),
    "time": ("Time", "Temps"),
    "speed": ("Speed", "Vitesse"),
    "speed_is": ("{speed} images/s while extracting", "{speed} images/s pendant l’extraction"),
    "model": ("Model", "Modèle"),
    "report": ("Report", "Rapport"),
    "listed": ("{count} listed: ", "{count} listés : "),
    "featurized": ("{count} featurized", "{count} calculés"),
    "reused": ("{count} reused", "{count} repris"),
    "rejected": ("{count} rejected", "{count} rejetés"),
    "kept": (
        "; {count} rows kept of images that have gone",
        " ; {count} lignes gardées d’images disparues",
    ),
}

_STAGES = {
    "list": ("listing", "liste"),
    "spark": ("Spark's start", "démarrage de Spark"),
    "plan": ("comparing", "comparaison"),
    "waves": ("planning", "planification"),
    "tidy": ("tidying up", "rangement"),
    "extract": ("extracting", "extraction"),
    "account": ("accounting", "décompte"),
    "fit": ("fitting", "ajustement"),
    "project": ("projecting", "projection"),
    "write": ("writing", "écriture"),
    "report": ("report", "rapport"),
}

_REASONS = {
    "not_an_image": ("not an image", "pas une image"),
    "empty": ("empty", "vide"),
    "truncated": ("truncated", "tronqué"),
    "corrupt": ("corrupt", "corrompu"),
    "unsupported": ("unsupported", "non pris en charge"),
    "too_large": ("too large", "trop grand"),
    "unreadable": ("unreadable", "illisible"),
    "crashed": ("crashed the decoder", "a fait planter le décodeur"),
    "timeout": ("took too long", "trop long"),
}


def texts(language: str) -> Texts:
    """All texts of a language, by name."""
    return _column(_PAIRS, language)


def summary_texts(language: str) -> Texts:
    """What a run says at its end."""
    return _column(_SUMMARY, language)


def stage_names(language: str) -> Texts:
    """What the stages of a run are called."""
    return _column(_STAGES, language)


def reason_names(language: str) -> Texts:
    """What the reasons for rejecting a file are called."""
    return _column(_REASONS, language)


def number_formats(language: str) -> dict[str, Callable[[float], str]]:
    """How a language writes a count, a decimal, a share and seconds.

    Examples:
        >>> formats = number_formats("en")
        >>> formats["count"](12345), formats["share"](0.12345)
        ('12,345', '12.3%')
    """

    def localized(text: str) -> str:
        text = text.replace("-", "\u2212")
        if language == "fr":
            return text.translate({ord(","): "\u202f", ord("."): ","}).replace("%", "\u00a0%")
        return text

    return {
        "count": lambda value: localized(f"{value:,.0f}"),
        "decimal": lambda value: localized(f"{value:,.2f}"),
        "share": lambda value: localized(f"{value:.1%}"),
        "exact_share": lambda value: localized(f"{value:.2%}"),
        "seconds": lambda value: localized(f"{value:,.1f}") + "\u00a0s",
    }


def _column(pairs: dict[str, tuple[str, str]], language: str) -> Texts:
    column = LANGUAGES.index(language)
    texts = {name: pair[column] for name, pair in pairs.items()}
    if language == "fr":
        # No line begins with what French writes after a space.
        texts = {name: re.sub(" (?=[:;?!%»])", "\u00a0", text) for name, text in texts.items()}
    return texts
