"""Generated scenes: drawings on backgrounds, phrases about them, and their true masks."""

from sspsam.scenes.atlas import load_atlas
from sspsam.scenes.expressions import KINDS, ScenePhrase
from sspsam.scenes.render import SceneConfig
from sspsam.scenes.scene import SPLITS, Scene, scene, scenes

__all__ = ["KINDS", "SPLITS", "Scene", "SceneConfig", "ScenePhrase", "load_atlas", "scene", "scenes"]
