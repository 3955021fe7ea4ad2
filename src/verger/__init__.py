"""verger turns pictures of fruit into a matrix: MobileNetV2 features and exact PCA on Spark.

Importing the package loads neither Spark nor TensorFlow.
"""

from importlib.metadata import version

__version__ = version("verger")
