"""LUPerson Lab: unsupervised pre-training, fine-tuning and evaluation for person re-identification.

Read the code in this order, each stage is one folder:

1. `lab.data`      what a re-ID data set is (`splits`), how it lies on disk (`readers`), how a crop becomes a tensor
                   (`jpeg`, `crops`), and the synthetic people that need no download (`synthetic`). Millions of crops: `keys`,
                   `store`, `store_writer`; from videos and boxes (`video`); from and to other layouts (`importing` with
                   `from_store`, `from_folder`, `from_tars`; `exporting`, `tars`; `pickles`); what they are (`info`, `sample`),
                   whether test images are among them (`overlap`, `hashes`); `overview` for looking at them; as
                   pre-training takes them (`images`)
2. `lab.backbone`  the ResNet trunk and how weights get into it; `weights` reads and recognises files, `pixels` normalises,
                   `released` knows what LUPerson's authors put out, `convert` writes the published layouts
3. `lab.training`  what surrounds both loops (`session`): the state of a run on disk (`checkpoints`), stopping on request
                   (`interrupts`), batches and numbers on the device (`loading`, `precision`), what is watched (`health`,
                   `log`, `profile`); `distributed` for several processes, `batch_norm` by groups
4. `lab.pretrain`  MoCo v2 as LUPerson does it: two views (`augment`), what arrives at each step (`batches`), two encoders
                   and a queue (`moco`), one loop (`train`)
5. `lab.finetune`  MGN on labelled identities: `sampler`, `augment`, `mgn`, `losses`, one loop (`train`)
6. `lab.evaluate`  features (`features`, `partial`), ranks without Q x G (`distance`, `blocks`, `counting`, `ranking`),
                   CMC, mAP, mINP (`metrics`), k-reciprocal re-ranking (`rerank`), query expansion (`expansion`), `multi_query`,
                   single-gallery-shot CMC (`single_shot`, `classic`), all pairs (`verification`, `error_rates`),
                   `camera_pairs`, an index (`approximate`), Grad-CAM (`attention`); the stage itself is `evaluate` with
                   `settings` and `stored`. Two runs: `compare`, `statistics`, `comparable`, `breakdown`, `domains`.
                   What the explorer asks: one query now (`search`), a threshold (`thresholds`), what each part adds to a
                   distance (`parts`), points of an embedding map (`map_points`)
7. `lab.show`      `figures` with crops, `curves`, `pairs`, `comparison`, `matrix` and `tables` from results. What the explorer
                   draws besides: `overview`, `run_facts`, `rank_lists`, `pair_maps`, `two_runs`, `error_tables`,
                   `embedding_map`, `data`, `images` and `uploads` of pictures. What notebooks
                   draw: `cameras`, `views`, `contrast`, `embedding`, `branches`, `losses`, `planning`, `precision`,
                   `circle`, `neighbours`, `gains`, `maps`, `uncertainty`, `published_tables`, `study`, `lines` and `bars`
                   (with `axes`); `live` for sliders
8. `lab.runs`      the folder that every stage writes and everything else reads; `log_file` for log.csv, `features_on_disk`
                   for large files; `machine` says what a number was measured on
9. `lab.models`    any weights as a model that embeds; `export` writes it as ONNX, for programs without torch
10. `lab.study`    the paper's claims in miniature: grids of runs (`designs`, `world`, `work`), error bars and verdicts
                   (`estimates`, `results`), tables and the report (`tables`, `report`)
11. `lab.cli`      the `lab` command, one thin function per verb (`verbs`, `data_verbs`); `demo` tells the whole story with
                   them, `reproduce` puts our numbers beside those of `published`, `matrix` every model on every data set
"""

__version__ = "0.1.0"
